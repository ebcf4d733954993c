"""What names, shapes and values tell of layers where no model does, and what is asked about."""

import numpy as np
import pytest

from instnorm import convert


def ones(*shape):
    return np.ones(shape, np.float32)


def norm(name="n", channels=4):
    return {f"{name}.weight": ones(channels), f"{name}.bias": ones(channels)}


def tracked(name="n", moved=True, counter=0, channels=4):
    return {
        **norm(name, channels),
        f"{name}.running_mean": np.full(channels, 0.5 if moved else 0.0, np.float32),
        f"{name}.running_var": ones(channels) * (2 if moved else 1),
        f"{name}.num_batches_tracked": np.array(counter),
    }


def mindspores(name="n", moved=False, channels=4):
    return {
        f"{name}.gamma": ones(channels),
        f"{name}.beta": ones(channels),
        f"{name}.moving_mean": np.full(channels, 0.5 if moved else 0.0, np.float32),
        f"{name}.moving_variance": ones(channels),
    }


def names(state, to, **options):
    return set(convert.state_dict(state, to, **options).state)


NEW = {"n.gamma", "n.beta", "n.moving_mean", "n.moving_variance"}


# --- to MindSpore -----------------------------------------------------------------------------


def test_what_all_norms_write_alike_is_not_asked_about():
    # An instance norm finds its statistics at the values of a new layer; the others pass over them.
    converted = convert.state_dict(norm(), "mindspore")
    assert set(converted.state) == NEW
    assert converted.state["n.moving_mean"].tolist() == [0] * 4
    (decision,) = converted.decisions
    assert decision.layer == "InstanceNorm or GroupNorm or LayerNorm"


def test_a_norm_over_several_axes_is_a_layer_norm():
    assert names({"n.weight": ones(3, 4), "n.bias": ones(3, 4)}, "mindspore") == {
        "n.gamma",
        "n.beta",
    }


@pytest.mark.parametrize(
    ("state", "kinds"),
    [
        ({"a.weight": ones(4)}, "PReLU or InstanceNorm or GroupNorm or LayerNorm"),
        ({"a.weight": ones(4, 3)}, "Linear or Embedding"),
        (
            tracked("a") | {"b.weight": ones(2, 2, 3, 3, 3), "c.weight": ones(2, 2, 3, 3)},
            "InstanceNorm or BatchNorm2d or BatchNorm3d",
        ),
    ],
)
def test_what_is_written_differently_is_asked_about(state, kinds):
    with pytest.raises(ValueError, match=rf"a\.weight.* \(of {kinds}\)"):
        convert.state_dict(state, "mindspore", running_stats="keep")


def test_one_number_without_a_bias_is_a_prelus():
    assert names({"a.weight": ones(1)}, "mindspore") == {"a.w"}


@pytest.mark.parametrize("counter", [1, 100])
def test_a_counter_that_has_counted_is_a_batch_norms(counter):
    # PyTorch's instance norm does not count: see the table of differences.
    state = tracked(counter=counter)
    converted = convert.state_dict(state, "mindspore")
    assert set(converted.state) == NEW
    assert converted.state["n.moving_mean"] is state["n.running_mean"]


@pytest.mark.parametrize("moved", [True, False])
def test_statistics_that_may_be_an_instance_norms_are_refused(moved):
    # A counter at 0 tells nothing: PyTorch puts 0 where an old file of a batch norm has none.
    with pytest.raises(ValueError, match=r"whose running statistics these are: n\.running_mean"):
        convert.state_dict(tracked(moved=moved), "mindspore")


@pytest.mark.parametrize("running_stats", ["keep", "drop"])
def test_statistics_that_may_be_a_batch_norms_are_kept(running_stats):
    # MindSpore's instance norm ignores them, and a batch norm needs them: both compute right.
    state = tracked()
    converted = convert.state_dict(state, "mindspore", running_stats=running_stats)
    assert converted.state["n.moving_mean"] is state["n.running_mean"]


def test_what_is_told_to_be_an_instance_norm_loses_its_statistics():
    converted = convert.state_dict(
        tracked(), "mindspore", layers={"n": "InstanceNorm2d"}, running_stats="drop"
    )
    assert converted.state["n.moving_mean"].tolist() == [0] * 4


def test_norms_say_that_nothing_else_is_one():
    state = norm("a") | norm("b")
    assert names(state, "mindspore", norms=["a"]) == {
        *("a.gamma", "a.beta", "a.moving_mean", "a.moving_variance"),
        *("b.gamma", "b.beta"),
    }


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6, 2, 5), (6, 2, 1, 5)), ((2, 6, 1), (2, 6, 1, 1))],
)
def test_convolutions_of_one_axis_get_another(shape, expected):
    converted = convert.state_dict({"c.weight": ones(*shape), "c.bias": ones(6)}, "mindspore")
    assert converted.state["c.weight"].shape == expected
    assert [(c.old, c.new) for c in converted.changes] == [("c.weight", "c.weight")]
    back = convert.state_dict(converted.state, "pytorch", layers={"c": "Conv1d"})
    assert back.state["c.weight"].shape == shape


def test_batch_norms_in_a_model_of_3d_convolutions():
    state = {"c.weight": ones(4, 2, 3, 3, 3)} | tracked("n", counter=3)
    assert names(state, "mindspore") >= {"n.bn2d.gamma", "n.bn2d.moving_variance"}
    # After a Linear it may be a BatchNorm1d.
    state = {"c.weight": ones(4, 2, 3, 3, 3), "d.weight": ones(4, 4), "d.bias": ones(4)}
    with pytest.raises(ValueError, match="BatchNorm2d or BatchNorm3d"):
        convert.state_dict(state | tracked("n", counter=3), "mindspore")
    told = convert.state_dict(
        state | tracked("n", counter=3), "mindspore", layers={"n": "BatchNorm1d"}
    )
    assert "n.gamma" in told.state


def test_what_no_layer_has_keeps_its_name():
    state = {
        "pos_embed": ones(1, 5, 4),
        "attn.in_proj_weight": ones(12, 4),
        "rnn.weight_hh_l0": ones(4, 4),
        "custom.weight": ones(4),
        "custom.scale": ones(4),
        "odd.bias": ones(4),
    }
    converted = convert.state_dict(state, "mindspore")
    assert converted.state == state
    assert converted.changes == []
    assert {d.prefix for d in converted.decisions if not d.layer} >= {"pos_embed", "custom.scale"}


def test_wildcards_speak_of_layers_that_may_be_of_the_class():
    state = {"a.weight": ones(4), "b.weight": ones(4, 3), **norm("c")}
    converted = convert.state_dict(state, "mindspore", layers={"*": "PReLU", "b*": "Embedding"})
    assert {"a.w", "b.embedding_table", "c.gamma"} <= set(converted.state)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"x": "PReLU"}, r"layers: 'x' fits no layer that can be PReLU; such layers are 'a'"),
        ({"b": "PReLU"}, r"layers: 'b' fits no layer that can be PReLU"),
        ({"a": "Prelu"}, r"no layer of the table is called 'Prelu'; there are InstanceNorm"),
    ],
)
def test_what_is_told_has_to_fit(layers, message):
    state = {"a.weight": ones(4), "b.weight": ones(4, 3), "b.bias": ones(4)}
    with pytest.raises(ValueError, match=message):
        convert.state_dict(state, "mindspore", layers=layers)


def test_keep_leaves_names_as_they_are():
    state = norm("a") | norm("b")
    assert {"a.weight", "b.gamma"} <= names(state, "mindspore", layers={"a": "keep"})
    assert names(state, "mindspore", others=["*"]) == set(state)


# --- mint -----------------------------------------------------------------------------------------


def test_mint_has_pytorchs_names_but_no_instance_norm():
    state = norm("a") | norm("b")
    with pytest.raises(ValueError, match=r"a\.weight, .*\(of InstanceNorm or GroupNorm"):
        convert.state_dict(state, "mindspore.mint")
    converted = convert.state_dict(state, "mindspore.mint", norms=["a"])
    assert set(converted.state) == {
        *("a.gamma", "a.beta", "a.moving_mean", "a.moving_variance"),
        *("b.weight", "b.bias"),
    }


def test_mint_counts_batches():
    state = tracked(counter=5)
    assert convert.state_dict(state, "mindspore.mint").state == state


# --- weight norm ------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["{}.weight_g {}.weight_v", "p"])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_weight_norm_is_computed(names, axis):
    keys = (
        names.format("c", "c").split()
        if names != "p"
        else [f"c.parametrizations.weight.original{i}" for i in (0, 1)]
    )
    v = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)
    rest = tuple(i for i in range(4) if i != axis)
    length = np.sqrt((v.astype(float) ** 2).sum(rest, keepdims=axis is not None))
    g = (2 * length).astype(np.float32)
    converted = convert.state_dict(dict(zip(keys, (g, v), strict=True)), "mindspore")
    assert list(converted.state) == ["c.weight"]
    np.testing.assert_allclose(converted.state["c.weight"], 2 * v, rtol=1e-6)
    assert converted.state["c.weight"].dtype == np.float32
    assert [(c.old, c.new) for c in converted.changes] == [(key, "c.weight") for key in keys]


def test_names_that_look_like_weight_norm_and_are_none():
    state = {"a.weight_g": ones(3), "b.weight_v": ones(3, 3), "c_g": ones(2), "c_v": ones(3)}
    assert convert.state_dict(state, "mindspore").state == state


def test_the_result_of_weight_norm_takes_no_name_that_is_taken():
    state = {"c.weight": ones(3, 3), "c.weight_g": ones(3, 1), "c.weight_v": ones(3, 3)}
    with pytest.raises(ValueError, match=r"new name 'c\.weight' is taken"):
        convert.state_dict(state, "mindspore")


@pytest.mark.parametrize(
    "extra",
    [
        {"c.weight_orig": ones(3, 2), "c.weight_mask": ones(3, 2)},
        {"c.weight_orig": ones(3, 2, 3, 3), "c.weight_u": ones(3), "c.weight_v": ones(18)},
        {
            "c.parametrizations.weight.original": ones(3, 2),
            "c.parametrizations.weight.0._u": ones(3),
        },
    ],
)
def test_results_of_other_parametrizations_are_named_as_what_mindspore_will_not_find(extra):
    converted = convert.state_dict({"c.bias": ones(3), **extra}, "mindspore")
    assert converted.unfound == ["c.weight"]
    assert set(extra) <= set(converted.state)


# --- back to PyTorch ------------------------------------------------------------------------------


def test_mindspores_names_say_it_all():
    state = {
        **mindspores("i"),
        **mindspores("b", moved=True),
        "g.gamma": ones(4),
        "g.beta": ones(4),
        "p.w": ones(4),
        "e.embedding_table": ones(5, 4),
        "d.weight": ones(4, 4),
        "c.weight": ones(4, 2, 3, 3),
        "one.weight": ones(4, 4, 1, 1),
        **{f"v.bn2d.{key[2:]}": value for key, value in mindspores("n", moved=True).items()},
    }
    assert names(state, "pytorch") == {
        *("i.weight", "i.bias", "g.weight", "g.bias", "p.weight", "e.weight"),
        *("d.weight", "c.weight", "one.weight"),
        *(f"{layer}.{name}" for layer in "bv" for name in ("weight", "bias", "running_mean")),
        *(f"{layer}.{name}" for layer in "bv" for name in ("running_var", "num_batches_tracked")),
    }


def test_a_layer_that_is_called_bn2d_is_not_inside_another():
    state = {f"x.bn2d.{key[2:]}": v for key, v in mindspores("n", moved=True).items()}
    state["x.conv.weight"] = ones(4, 2, 3, 3)
    assert "x.bn2d.running_mean" in names(state, "pytorch")


def test_kernels_of_one_row():
    rows = {"a.weight": ones(4, 2, 1, 3), "b.weight": ones(4, 2, 1, 1)}
    converted = convert.state_dict(rows, "pytorch").state
    assert [value.shape for value in converted.values()] == [(4, 2, 3), (4, 2, 1)]
    with pytest.raises(ValueError, match=r"b\.weight \(of Conv2d or Conv1d\)"):
        convert.state_dict({"b.weight": ones(4, 2, 1, 1)}, "pytorch")
    with pytest.raises(ValueError, match=r"a\.weight \(of Conv2d or Conv1d\)"):
        convert.state_dict(rows | {"c.weight": ones(4, 2, 3, 3)}, "pytorch")
    told = convert.state_dict(
        rows | {"c.weight": ones(4, 2, 3, 3)}, "pytorch", layers={"a": "Conv1d"}
    ).state
    assert [value.shape for value in told.values()] == [(4, 2, 3), (4, 2, 1, 1), (4, 2, 3, 3)]


NAMES = [
    *("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "gamma", "beta"),
    *("moving_mean", "moving_variance", "mean", "variance", "w", "embedding_table", "weight_g"),
    *("weight_v", "weight_orig", "weight_u", "original0", "original1", "original", "x", "", "bn2d"),
]
LAYERS = ["", "a", "a.bn2d", "a.parametrizations.weight", "..", "*"]
SHAPES = [(), (1,), (3,), (3,), (3, 2), (3, 2, 3), (3, 2, 1, 3), (3, 2, 3, 3), (3, 1), (2,) * 5]
DTYPES = ["f4"] * 18 + ["f8", "i8", "?", "c8", "U3", "S2", "M8[s]", "V7", "O"]


def any_state(random):
    def any_of(choices):
        return choices[random.integers(len(choices))]

    keys = [".".join(filter(None, (any_of(LAYERS), any_of(NAMES)))) for _ in range(8)]
    return {key: np.zeros(any_of(SHAPES), any_of(DTYPES)) for key in keys[random.integers(8) :]}


@pytest.mark.parametrize("to", ["mindspore", "mindspore.mint", "pytorch"])
def test_any_state_is_converted_or_refused(to):
    random = np.random.default_rng(0)
    outcomes = {"converted": 0, "refused": 0}
    for _ in range(1500):
        state = any_state(random)
        running_stats = str(random.choice(["refuse", "drop", "keep"]))
        try:
            converted = convert.state_dict(state, to, running_stats=running_stats)
        except ValueError:
            outcomes["refused"] += 1
        else:
            outcomes["converted"] += 1
            gone = {change.old for change in converted.changes if change.new is None}
            moved = {change.old for change in converted.changes}
            assert gone | moved | set(converted.state) >= set(state)
    assert min(outcomes.values()) > 50


def test_names_must_be_text():
    with pytest.raises(TypeError, match="names that are str, got int"):
        convert.state_dict({1: ones(2)}, "mindspore")
