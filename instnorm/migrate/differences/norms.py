"""Differences of the layers that models mix with InstanceNorm2d: other norms, and convolutions.

PyTorch 2.13 against MindSpore 2.10, each cell with its check, as in the table of InstanceNorm2d.
"""

from __future__ import annotations

from instnorm.migrate.differences import checks as c
from instnorm.migrate.differences.table import Cell, Row, Section


def _row(topic: str, pytorch: Cell, mindspore: Cell) -> Row:
    return Row(topic, pytorch, mindspore, "")


_INPUT = _row("input", Cell("`input`", c.input_is("input")), Cell("`x`", c.input_is("x")))
_INITIAL = _row(
    "`gamma_init`, `beta_init`",
    Cell("no such parameters", c.lacks("gamma_init", "beta_init")),
    Cell(
        "'ones', 'zeros'",
        c.all_of(c.default("gamma_init", "ones"), c.default("beta_init", "zeros")),
    ),
)
_DTYPE = _row(
    "`dtype`, `device`",
    Cell("None, None", c.all_of(c.default("dtype", None), c.default("device", None))),
    Cell(
        "`dtype` float32; no `device`",
        c.all_of(
            lambda f: "float32" in str(f.parameters()["dtype"].default).lower(), c.lacks("device")
        ),
    ),
)
_BIAS = _row(
    "`bias`", Cell("True", c.default("bias", True)), Cell("no such parameter", c.lacks("bias"))
)
_MODE = _row(
    "mode of a new layer",
    Cell("training", c.starts_in_training(True)),
    Cell("evaluation, until `set_train()`", c.starts_in_training(False)),
)
_COUNTER = "num_batches_tracked"
_STATISTICS = ("running_mean", "running_var", _COUNTER)
_MOVING = ("moving_mean", "moving_variance")


def _instance_norm(rank: int) -> Section:
    axes = {1: "2 or 3", 3: "4 or 5"}[rank]
    return Section(
        f"InstanceNorm{rank}d",
        (
            _INPUT,
            _row(
                "`eps`",
                Cell("1e-5; not checked", c.all_of(c.default("eps", 1e-5), c.takes(eps=-1.0))),
                Cell(
                    "1e-5; a float in (0, 1]",
                    c.all_of(
                        c.default("eps", 1e-5),
                        *(c.refuses(ValueError, eps=e) for e in (0.0, -1e-5, 1.5)),
                        c.refuses(TypeError, eps=1),
                    ),
                ),
            ),
            _row(
                "`momentum`",
                Cell(
                    "0.1, the share of the new statistic",
                    c.all_of(
                        c.default("momentum", 0.1),
                        c.moves_by(0.25, momentum=0.25, track_running_stats=True),
                    ),
                ),
                Cell(
                    "0.1, documented as the share of the old statistic",
                    c.all_of(
                        c.default("momentum", 0.1),
                        c.documents(
                            r"\hat{x}_\text{new} = (1 - \text{momentum}) \times x_t + "
                            r"\text{momentum} \times \hat{x}"
                        ),
                    ),
                ),
            ),
            _row(
                "`affine`",
                Cell("False", c.default("affine", False)),
                Cell("True", c.default("affine", True)),
            ),
            _row(
                "`affine=False`",
                Cell("no `weight`, no `bias`", c.state_names(affine=False)),
                Cell("`gamma` and `beta` are there, and not learned", c.not_learned),
            ),
            _row(
                "`track_running_stats`",
                Cell("False", c.default("track_running_stats", False)),
                Cell("no such parameter", c.lacks("track_running_stats")),
            ),
            _BIAS,
            _INITIAL,
            _DTYPE,
            _row(
                "axes of the input",
                Cell(axes, c.all_of(c.one_rank_each, c.takes_unbatched)),
                Cell(f"{rank + 2}", c.all_of(c.one_rank_each, c.refuses_unbatched)),
            ),
            _MODE,
            _row(
                "state of a layer in a network",
                Cell(
                    "`weight`, `bias` where affine",
                    c.nested_state_names("weight", "bias", affine=True),
                ),
                Cell(
                    "`gamma`, `beta`, `moving_mean`, `moving_variance`",
                    c.nested_state_names("gamma", "beta", *_MOVING),
                ),
            ),
            _row(
                "platforms",
                Cell("CPU, GPU", c.runs),
                Cell(
                    "GPU alone",
                    c.all_of(c.documents("Supported Platforms: ``GPU`` "), c.has_no_kernel),
                ),
            ),
        ),
    )


def _batch_norm(rank: int) -> Section:
    inside = "bn2d." if rank == 3 else ""
    names = [f"{inside}{name}" for name in ("gamma", "beta", *_MOVING)]
    axes = {1: (2, 3), 2: (4,), 3: (5,)}[rank]
    shown = " or ".join(map(str, axes))
    return Section(
        f"BatchNorm{rank}d",
        (
            _INPUT,
            _row(
                "`momentum`",
                Cell(
                    "0.1, the share of the new statistic; None for the average of all batches",
                    c.all_of(
                        c.default("momentum", 0.1),
                        c.moves_by(0.25, momentum=0.25),
                        c.moves_by(1.0, momentum=None),
                    ),
                ),
                Cell(
                    "0.9, the share of the old statistic; None: TypeError",
                    c.all_of(
                        c.default("momentum", 0.9),
                        c.moves_by(0.75, momentum=0.25),
                        c.refuses(TypeError, momentum=None),
                    ),
                ),
            ),
            _row(
                "running variance",
                Cell("of the unbiased variance", c.variance_is_unbiased),
                Cell("the same", c.variance_is_unbiased),
            ),
            _row(
                "`affine=False`",
                Cell("no `weight`, no `bias`", c.state_names(*_STATISTICS, affine=False)),
                Cell(
                    "`gamma` and `beta` are there, and not learned",
                    c.nested_state_names(*names, affine=False),
                ),
            ),
            _row(
                "`track_running_stats`",
                Cell(
                    "True; False normalizes by the batch in evaluation too",
                    c.all_of(
                        c.default("track_running_stats", True),
                        c.state_names("weight", "bias", track_running_stats=False),
                    ),
                ),
                Cell(
                    "no such parameter; `use_batch_statistics` None, True or False",
                    c.all_of(
                        c.lacks("track_running_stats"), c.default("use_batch_statistics", None)
                    ),
                ),
            ),
            _BIAS,
            _INITIAL,
            _DTYPE,
            _row(
                "axes of the input",
                Cell(f"{shown}; else ValueError", c.takes_axes(*axes)),
                Cell(f"{shown}; else ValueError", c.takes_axes(*axes)),
            ),
            _row(
                "one value for each channel in training",
                Cell("ValueError", c.one_value_in_training(ValueError)),
                Cell("normalized to 0", c.one_value_in_training(None)),
            ),
            _MODE,
            _row(
                "a new layer as it is made",
                Cell("normalizes by the batch", c.new_layer_changes_its_input(True)),
                Cell(
                    "normalizes by its statistics, which are 0 and 1",
                    c.new_layer_changes_its_input(False),
                ),
            ),
            _row(
                "evaluation",
                Cell("by the running statistics", c.evaluates_by_tracked_statistics),
                Cell("the same", c.evaluates_by_tracked_statistics),
            ),
            _row(
                "state of a layer in a network",
                Cell(
                    f"`weight`, `bias`, {', '.join(f'`{name}`' for name in _STATISTICS)}",
                    c.nested_state_names("weight", "bias", *_STATISTICS),
                ),
                Cell(
                    ", ".join(f"`{name}`" for name in names),
                    c.nested_state_names(*names),
                ),
            ),
        ),
    )


GROUP_NORM = Section(
    "GroupNorm",
    (
        _INPUT,
        _row(
            "`eps`",
            Cell("1e-5; not checked", c.all_of(c.default("eps", 1e-5), c.takes(eps=1))),
            Cell(
                "1e-5; a float",
                c.all_of(c.default("eps", 1e-5), c.takes(eps=-1.0), c.refuses(TypeError, eps=1)),
            ),
        ),
        _row(
            "`affine`",
            Cell("True", c.default("affine", True)),
            Cell("True", c.default("affine", True)),
        ),
        _row(
            "`affine=False`",
            Cell("no `weight`, no `bias`", c.state_names(affine=False)),
            Cell("`gamma` and `beta` are there, and not learned", c.not_learned_with(affine=False)),
        ),
        _BIAS,
        _INITIAL,
        _DTYPE,
        _MODE,
        _row(
            "platforms",
            Cell("CPU, GPU", c.runs),
            Cell(
                "Ascend, GPU, CPU",
                c.all_of(c.documents("Supported Platforms: ``Ascend`` ``GPU`` ``CPU``"), c.runs),
            ),
        ),
        _row(
            "state of a layer in a network",
            Cell("`weight`, `bias`", c.nested_state_names("weight", "bias")),
            Cell("`gamma`, `beta`", c.nested_state_names("gamma", "beta")),
        ),
        _row(
            "`num_channels` that the groups do not divide",
            Cell("ValueError", lambda f: c.raises(ValueError, f.layer, 2, 3)),
            Cell("ValueError", lambda f: c.raises(ValueError, f.layer, 2, 3)),
        ),
    ),
)

LAYER_NORM = Section(
    "LayerNorm",
    (
        _row(
            "input",
            Cell("`input`", c.input_is("input")),
            Cell("`input_x`", c.input_is("input_x")),
        ),
        _row(
            "`eps`",
            Cell("`eps` 1e-5", c.all_of(c.default("eps", 1e-5), c.lacks("epsilon"))),
            Cell("`epsilon` 1e-7", c.all_of(c.default("epsilon", 1e-7), c.lacks("eps"))),
        ),
        _row(
            "`normalized_shape`",
            Cell(
                "a number or a sequence: the last axes, normalized together",
                c.all_of(lambda f: f.layer(4) is not None, c.normalizes_all_of_the_shape),
            ),
            Cell(
                "a tuple or a list, else TypeError; only the last axis is normalized, unless "
                "`begin_norm_axis` and `begin_params_axis` say more",
                c.all_of(lambda f: c.raises(TypeError, f.layer, 4), c.normalizes_last_axis_alone),
            ),
        ),
        _row(
            "`begin_norm_axis`, `begin_params_axis`",
            Cell("no such parameters", c.lacks("begin_norm_axis", "begin_params_axis")),
            Cell(
                "-1, -1; other negative ones are refused on a CPU: count from the first axis",
                c.all_of(
                    c.default("begin_norm_axis", -1),
                    c.default("begin_params_axis", -1),
                    c.refuses_negative_axes,
                ),
            ),
        ),
        _row(
            "`elementwise_affine`",
            Cell(
                "True; False: no `weight`, no `bias`",
                c.all_of(
                    c.default("elementwise_affine", True), c.state_names(elementwise_affine=False)
                ),
            ),
            Cell(
                "no such parameter: `gamma` and `beta` are there and learned",
                c.all_of(c.lacks("elementwise_affine"), c.learned_with()),
            ),
        ),
        _BIAS,
        _INITIAL,
        _DTYPE,
        _row(
            "state of a layer in a network",
            Cell("`weight`, `bias`", c.nested_state_names("weight", "bias")),
            Cell("`gamma`, `beta`", c.nested_state_names("gamma", "beta")),
        ),
    ),
)

CONVOLUTION = Section(
    "Conv2d",
    (
        _row(
            "padding",
            Cell(
                "`padding` 0: the output is smaller",
                c.all_of(c.default("padding", 0), c.keeps_size(False)),
            ),
            Cell(
                '`pad_mode` "same": the output has the input\'s size',
                c.all_of(c.default("pad_mode", "same"), c.keeps_size(True)),
            ),
        ),
        _row(
            "bias",
            Cell("`bias` True", c.default("bias", True)),
            Cell("`has_bias` False", c.default("has_bias", False)),
        ),
        _row(
            "`padding_mode`",
            Cell(
                "'zeros', 'reflect', 'replicate' or 'circular'",
                c.all_of(
                    *(c.takes(padding_mode=m) for m in ("reflect", "replicate", "circular")),
                    c.default("padding_mode", "zeros"),
                ),
            ),
            Cell("no such parameter: zeros", c.lacks("padding_mode")),
        ),
        _row(
            "groups",
            Cell("`groups`", c.default("groups", 1)),
            Cell("`group`", c.default("group", 1)),
        ),
        _row(
            "weight of a Conv1d",
            Cell("(O, I, k)", c.weight_of_conv1d(3, 3, 3)),
            Cell("(O, I, 1, k)", c.weight_of_conv1d(3, 3, 1, 3)),
        ),
        _row(
            "`output_padding` of the transposed convolution",
            Cell("what the kernel gives there", c.output_padding_adds(False)),
            Cell("rows of zeros", c.output_padding_adds(True)),
        ),
    ),
)

#: By the layer's class.
NORMS = {
    section.title: section
    for section in (
        _instance_norm(1),
        _instance_norm(3),
        _batch_norm(1),
        _batch_norm(2),
        _batch_norm(3),
        GROUP_NORM,
        LAYER_NORM,
        CONVOLUTION,
    )
}
