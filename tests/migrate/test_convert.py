"""Moving state between the flavours: layers, whole models, and the files of both frameworks."""

import os
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers.beside_torch import torch
from helpers.tensors import normal
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from instnorm import cli, convert, nn
from instnorm.migrate import checkpoints
from instnorm.migrate.checkpoints import CheckpointError
from instnorm.nn import mindspore as ms

pytestmark = pytest.mark.torch

PAIRS = {
    1: (nn.InstanceNorm1d, ms.InstanceNorm1d),
    2: (nn.InstanceNorm2d, ms.InstanceNorm2d),
    3: (nn.InstanceNorm3d, ms.InstanceNorm3d),
}
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]

in_every_rank = pytest.mark.parametrize("rank", PAIRS)


def randomized(layer, seed=0):
    """The layer, with other values than a new one's."""
    for i, tensor in enumerate([*layer.parameters(), *layer.buffers()]):
        if tensor.dtype != np.int64:
            tensor.data[...] = 1.5 + normal(*tensor.shape, seed=seed + i)
    return layer


def assert_same(left, right):
    assert list(left) == list(right)
    for name, value in left.items():
        assert value.dtype == right[name].dtype, name
        np.testing.assert_array_equal(value, right[name], name)


# --- layers -------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [True, False])
@in_every_rank
def test_a_layer_computes_the_same_after_conversion(rank, affine, dtype, training):
    x = normal(2, 3, *(4,) * rank).astype(dtype)
    layer = randomized(PAIRS[rank][0](3, eps=0.5, affine=affine, dtype=dtype)).train(training)
    converted = convert.layer(layer, to="mindspore")
    assert type(converted) is PAIRS[rank][1]
    assert converted.training == training
    assert converted.gamma.requires_grad == converted.beta.requires_grad == affine
    # Without parameters there is no dtype to keep.
    assert converted.gamma.dtype == (dtype if affine else np.float32)
    np.testing.assert_array_equal(converted(x).data, layer(x).data)

    back = convert.layer(converted, to="pytorch")
    assert repr(back) == repr(layer)
    assert back.training == training
    assert_same(back.state_dict(), layer.state_dict())


def test_the_copy_shares_nothing():
    layer = nn.InstanceNorm2d(3, affine=True)
    converted = convert.layer(layer, to="mindspore")
    converted.gamma.data[...] = 7
    assert layer.weight.tolist() == [1, 1, 1]
    convert.layer(converted, to="pytorch").weight.data[...] = 8
    assert converted.gamma.tolist() == [7, 7, 7]


def test_a_layer_of_the_flavour_is_returned_as_it_is():
    for layer, to in ((nn.InstanceNorm2d(3), "pytorch"), (ms.InstanceNorm2d(3), "mindspore")):
        assert convert.layer(layer, to=to) is layer


@pytest.mark.parametrize(
    ("pytorchs", "mindspores"), [(0.1, 0.9), (0.9, 0.1), (0.25, 0.75), (0, 1.0), (1, 0.0)]
)
def test_the_momentum_is_turned_round(pytorchs, mindspores):
    converted = convert.layer(nn.InstanceNorm2d(3, momentum=pytorchs), to="mindspore")
    assert converted.momentum == mindspores
    assert convert.layer(converted, to="pytorch").momentum == pytorchs


def test_momentum_none_keeps_the_old_statistics():
    converted = convert.layer(nn.InstanceNorm2d(3, momentum=None), to="mindspore")
    assert converted.momentum == 1.0
    back = convert.layer(converted, to="pytorch", running_stats="keep")
    back(normal(2, 3, 4, 4) + 5)
    assert back.running_mean.tolist() == [0, 0, 0]


def test_a_weight_without_bias():
    layer = randomized(nn.InstanceNorm2d(3, affine=True, bias=False))
    converted = convert.layer(layer, to="mindspore")
    assert converted.beta.tolist() == [0, 0, 0]
    assert [p is converted.gamma for p in converted.trainable_params()] == [True]
    assert repr(convert.layer(converted, to="pytorch")) == repr(layer)


def test_gamma_that_is_applied_but_not_learned_is_not_lost():
    layer = ms.InstanceNorm2d(3, affine=False, gamma_init=2.0)
    converted = convert.layer(layer, to="pytorch")
    assert converted.affine
    assert not any(p.requires_grad for p in converted.parameters())
    x = normal(2, 3, 4, 4)
    np.testing.assert_array_equal(converted(x).data, layer(x).data)


@pytest.mark.parametrize("affine", [True, False])
def test_running_statistics_of_a_layer(affine):
    layer = randomized(nn.InstanceNorm2d(3, affine=affine, track_running_stats=True))
    with pytest.raises(ValueError, match=r"MindSpore ignores running statistics.*InstanceNorm2d"):
        convert.layer(layer, to="mindspore")
    dropped = convert.layer(layer, to="mindspore", running_stats="drop")
    assert dropped.moving_mean.tolist() == [0, 0, 0]
    assert dropped.moving_variance.tolist() == [1, 1, 1]
    assert not convert.layer(dropped, to="pytorch").track_running_stats

    kept = convert.layer(layer, to="mindspore", running_stats="keep")
    np.testing.assert_array_equal(kept.moving_mean.data, layer.running_mean.data)
    np.testing.assert_array_equal(kept.moving_variance.data, layer.running_var.data)
    with pytest.raises(ValueError, match=r"MindSpore ignored these running statistics"):
        convert.layer(kept, to="pytorch")
    back = convert.layer(kept, to="pytorch", running_stats="keep")
    assert_same(back.state_dict(), layer.state_dict())
    assert convert.layer(kept, to="pytorch", running_stats="drop").running_mean is None


@pytest.mark.parametrize(
    ("layer", "options", "error", "message"),
    [
        (nn.Conv2d(1, 1, 1), {}, TypeError, r"instnorm\.nn\.mindspore, got Conv2d"),
        (torch.nn.InstanceNorm2d(3), {}, TypeError, r"layer must be an InstanceNorm1d"),
        (nn.InstanceNorm2d(3, eps=0), {}, ValueError, r"'eps' must be in \(0, 1\]"),
        (nn.InstanceNorm2d(0), {}, ValueError, r"'num_features' must be at least 1"),
        (nn.InstanceNorm2d(3), {"running_stats": "no"}, ValueError, r"one of refuse, drop, keep"),
        (nn.InstanceNorm2d(3), {"to": "jax"}, ValueError, r"to must be one of mindspore, pytorch"),
    ],
)
def test_layers_that_cannot_be_converted(layer, options, error, message):
    with pytest.raises(error, match=message):
        convert.layer(layer, **{"to": "mindspore", **options})


# --- state dicts --------------------------------------------------------------


def network():
    """All that looks like an instance norm, with one that has no state and one inside."""
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),  # 0
        nn.InstanceNorm2d(4, affine=True),  # 1
        nn.PReLU(4),  # 2
        nn.BatchNorm2d(4),  # 3
        nn.InstanceNorm2d(4),  # 4
        nn.Sequential(nn.Linear(4, 4), nn.InstanceNorm2d(4, affine=True, bias=False)),  # 5
        nn.GroupNorm(2, 4),  # 6
        nn.LayerNorm(4),  # 7
    )


MOVED = {
    **{f"{layer}.weight": f"{layer}.gamma" for layer in ("1", "3", "5.1", "6", "7")},
    **{f"{layer}.bias": f"{layer}.beta" for layer in ("1", "3", "6", "7")},
    "2.weight": "2.w",
    "3.running_mean": "3.moving_mean",
    "3.running_var": "3.moving_variance",
    "3.num_batches_tracked": None,
}


def test_the_layers_of_a_model_are_renamed():
    net = network()
    state = net.state_dict()
    converted, changes = convert.state_dict(state, to="mindspore", model=net)
    for name, value in state.items():
        if MOVED.get(name, name) is not None:
            assert converted[MOVED.get(name, name)] is value
    created = {name for name in converted if name not in state and name not in MOVED.values()}
    assert created == {
        *(f"{layer}.{name}" for layer in ("1", "4", "5.1") for name in ("moving_mean",)),
        *(f"{layer}.moving_variance" for layer in ("1", "4", "5.1")),
        *("4.gamma", "4.beta", "5.1.beta"),
    }
    for name in created:
        one = name.endswith(("gamma", "variance"))
        assert np.asarray(converted[name]).tolist() == [float(one)] * 4
    assert {c.old: c.new for c in changes if c.old} == MOVED
    assert {c.new for c in changes if c.old is None} == created


def test_the_order_of_the_entries_stays():
    converted = convert.state_dict(network().state_dict(), to="mindspore", model=network()).state
    layers = [name.rpartition(".")[0] for name in converted]
    assert list(dict.fromkeys(layers)) == ["0", "1", "2", "3", "5.0", "5.1", "6", "7", "4"]


@pytest.mark.parametrize("norms", [["1", "5.1"], ["?", "5.1"]])
def test_names_tell_the_same_as_the_model(norms):
    net = network()
    expected = convert.state_dict(net.state_dict(), to="mindspore", model=net).state
    found = convert.state_dict(
        {name: value for name, value in net.state_dict().items() if name[0] in "015"},
        to="mindspore",
        norms=norms,
    ).state
    assert set(found) == {name for name in expected if name[0] in "015"}


def test_what_is_unclear_is_refused_by_name():
    with pytest.raises(ValueError, match="cannot tell whether") as raised:
        convert.state_dict(network().state_dict(), to="mindspore")
    message = str(raised.value)
    for key in ("2.weight", "5.1.weight"):
        assert key in message
    # All that these may be is written alike.
    for key in ("0.weight", "0.bias", "1.weight", "1.bias", "5.0.weight", "6.weight", "7.bias"):
        assert f" {key}" not in message


def test_a_wildcard_does_not_take_a_weight_alone():
    state = {"act.weight": np.ones(4), "norm.weight": np.ones(4), "norm.bias": np.ones(4)}
    with pytest.raises(ValueError, match=r"differently: act\.weight \(of PReLU or GroupNorm or"):
        convert.state_dict(state, to="mindspore", norms=["*"])
    converted = convert.state_dict(state, to="mindspore", norms=["*"], others=["a*"]).state
    assert "act.weight" in converted
    assert "norm.gamma" in converted
    assert "act.gamma" in convert.state_dict(state, to="mindspore", norms=["*", "act"]).state


def test_the_state_of_one_layer_needs_no_names():
    layer = randomized(nn.InstanceNorm2d(3, affine=True))
    converted = convert.state_dict(layer.state_dict(), to="mindspore").state
    assert list(converted) == ["gamma", "beta", "mean", "variance"]
    loaded = ms.InstanceNorm2d(3)
    loaded.load_state_dict(converted)
    x = normal(2, 3, 4, 4)
    np.testing.assert_array_equal(loaded(x).data, layer(x).data)
    back = convert.state_dict(loaded.state_dict(), to="pytorch").state
    assert_same(back, layer.state_dict())


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_kept(dtype):
    state = {"n.weight": np.arange(3).astype(dtype), "n.bias": np.ones(3, dtype)}
    converted = convert.state_dict(state, to="mindspore", norms=["n"]).state
    assert {value.dtype for value in converted.values()} == {np.dtype(dtype)}
    as_torch = {
        k: torch.tensor(v.astype(np.float32)).to(getattr(torch, np.dtype(dtype).name))
        for k, v in state.items()
    }
    converted = convert.state_dict(as_torch, to="mindspore", norms=["n"]).state
    assert {value.dtype for value in converted.values()} == {as_torch["n.bias"].dtype}


def test_running_statistics_of_a_state():
    net = torch.nn.Sequential(
        torch.nn.InstanceNorm2d(3, affine=True, track_running_stats=True), torch.nn.BatchNorm2d(3)
    )
    net(torch.randn(2, 3, 4, 4))
    state = net.state_dict()
    with pytest.raises(ValueError, match=r"ignores running statistics.*0\.running_mean"):
        convert.state_dict(state, to="mindspore", model=net)
    dropped, changes = convert.state_dict(state, to="mindspore", model=net, running_stats="drop")
    assert dropped["0.moving_mean"].tolist() == [0, 0, 0]
    assert dropped["0.moving_variance"].tolist() == [1, 1, 1]
    left_out = {change.old for change in changes if change.new is None}
    assert left_out == {
        *("0.running_mean", "0.running_var", "0.num_batches_tracked"),
        "1.num_batches_tracked",
    }
    assert dropped["1.moving_mean"] is state["1.running_mean"]

    kept = convert.state_dict(state, to="mindspore", model=net, running_stats="keep").state
    assert kept["0.moving_mean"] is state["0.running_mean"]
    with pytest.raises(ValueError, match=r"ignored these running statistics.*0\.moving_mean"):
        convert.state_dict(kept, to="pytorch", model=net)
    back = convert.state_dict(kept, to="pytorch", model=net, running_stats="keep").state
    net.load_state_dict({name: torch.as_tensor(value) for name, value in back.items()})
    assert list(back) == list(state)
    dropped = convert.state_dict(kept, to="pytorch", model=net, running_stats="drop").state
    assert [name for name in dropped if name[0] == "0"] == ["0.weight", "0.bias"]


@pytest.mark.parametrize("mean", ["mean", "moving_mean"])
def test_both_of_mindspores_names_are_read(mean):
    variance = mean.replace("mean", "variance")
    state = {"n.gamma": np.ones(2), "n.beta": np.zeros(2)}
    state |= {f"n.{mean}": np.zeros(2), f"n.{variance}": np.ones(2)}
    assert list(convert.state_dict(state, to="pytorch", norms=["*"]).state) == [
        "n.weight",
        "n.bias",
    ]


def test_a_shared_layer_has_all_its_names():
    norm = torch.nn.InstanceNorm2d(3, affine=True)
    net = torch.nn.ModuleDict({"a": norm, "b": norm})
    converted = convert.state_dict(net.state_dict(), to="mindspore", model=net).state
    assert {"a.gamma", "b.gamma"} <= set(converted)


def test_a_state_without_instance_norms_stays():
    state = {
        "0.weight": np.ones((2, 2)),
        "0.bias": np.ones(2),
        "1.weight": np.ones((2, 1, 3, 3)),
        "2.bias": np.ones(2),
        "3.weight": np.ones(()),
        "weight": 3,
        "scale": np.ones(2),
    }
    converted, changes = convert.state_dict(state, to="mindspore")
    assert converted == state
    assert changes == []


CONV = {"c.weight": np.ones((2, 1, 3, 3)), "c.bias": np.ones(2)}
NORM = {"n.weight": np.ones(2), "n.bias": np.ones(2)}


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        (CONV, {"norms": ["c"]}, r"norms: 'c' fits no layer .* such layers are none"),
        (NORM, {"norms": ["n", "m*"]}, r"norms: 'm\*' fits no layer .* such layers are 'n'"),
        (NORM | {"n.gamma": np.ones(2)}, {"norms": ["n"]}, r"new name 'n\.gamma' is taken"),
        (NORM, {"model": torch.nn.ReLU()}, r"model: ReLU has no layer of the table"),
        (
            NORM,
            {"model": torch.nn.Sequential(torch.nn.InstanceNorm2d(2, affine=True))},
            r"no entries of the model's 0",
        ),
        (NORM, {"model": torch.nn.InstanceNorm2d(2), "norms": ["n"]}, r"no use beside model"),
        (
            {"n.mean": np.ones(2), "n.moving_mean": np.ones(2)},
            {"to": "pytorch"},
            r"both 'n\.mean' and 'n\.moving_mean'",
        ),
        (NORM, {"to": "jax"}, r"to must be one of"),
        (NORM, {"running_stats": None}, r"running_stats must be one of"),
    ],
)
def test_states_that_cannot_be_converted(state, options, message):
    with pytest.raises(ValueError, match=message):
        convert.state_dict(state, **{"to": "mindspore", **options})


def test_a_state_must_be_a_mapping():
    with pytest.raises(TypeError, match="state must be a mapping, got list"):
        convert.state_dict([], to="mindspore")


# --- files --------------------------------------------------------------------

WHOLE = {
    "conv.weight": normal(4, 2, 3, 3).astype(np.float32),
    "conv.bias": normal(4).astype(np.float16),
    "norm.weight": normal(4).astype(ml_dtypes.bfloat16),
    "norm.bias": normal(4),
    "steps": np.array(7),
    "flag": np.array(True),
    "file": np.arange(3, dtype=np.uint8),
}


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_every_format_keeps_names_values_and_dtypes(suffix, tmp_path):
    path = tmp_path / f"state{suffix}"
    path.write_bytes(checkpoints.dumps(path, WHOLE))
    found = checkpoints.read(path)
    assert found.metadata == {}
    assert_same({name: found.arrays[name] for name in WHOLE}, WHOLE)
    assert len(found.arrays) == len(WHOLE)


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_arrays_in_any_layout_are_written(suffix, tmp_path):
    path = tmp_path / f"state{suffix}"
    array = normal(3, 4).astype(np.float32)
    array.flags.writeable = False
    path.write_bytes(checkpoints.dumps(path, {"t": array.T, "s": array[::2, ::-1]}))
    assert_same(
        dict(sorted(checkpoints.read(path).arrays.items())), {"s": array[::2, ::-1], "t": array.T}
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_metadata_is_kept(suffix, tmp_path):
    path = tmp_path / f"state{suffix}"
    metadata = {"note": "ünï", "epoch": "3"}
    path.write_bytes(checkpoints.dumps(path, WHOLE, metadata))
    assert checkpoints.read(path).metadata == metadata


def test_metadata_of_the_file_itself_is_not_passed_on(tmp_path):
    path = tmp_path / "state.safetensors"
    save_file({"a": np.ones(2)}, path, {"format": "ms", "crc_num": "5", "note": "x"})
    assert checkpoints.read(path).metadata == {"note": "x"}


@pytest.mark.parametrize(("flavour", "expected"), [("mindspore", "ms"), ("pytorch", "pt")])
def test_safetensors_tell_the_framework(flavour, expected, tmp_path):
    path = tmp_path / "state.safetensors"
    content = checkpoints.dumps(path, WHOLE, flavour=flavour)
    path.write_bytes(content)
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": expected}


def test_pytorch_reads_what_is_written(tmp_path):
    path = tmp_path / "state.pth"
    path.write_bytes(checkpoints.dumps(path, WHOLE))
    loaded = torch.load(path, weights_only=True)
    assert list(loaded) == list(WHOLE)
    assert loaded["norm.weight"].dtype == torch.bfloat16
    np.testing.assert_array_equal(
        loaded["norm.weight"].float().numpy(), WHOLE["norm.weight"].astype(np.float32)
    )
    np.testing.assert_array_equal(loaded["conv.weight"].numpy(), WHOLE["conv.weight"])


def test_pytorchs_own_files_are_read(tmp_path):
    net = network().to(torch.bfloat16)
    net[0].weight.data = net[0].weight.data.to(memory_format=torch.channels_last)
    for name in ("net.pt", "lightning.ckpt"):
        torch.save(net.state_dict(), tmp_path / name)
        found = checkpoints.read(tmp_path / name).arrays
        assert list(found) == list(net.state_dict())
        for key, tensor in net.state_dict().items():
            np.testing.assert_array_equal(found[key].astype(np.float64), tensor.double().numpy())


def test_a_state_dict_among_others(tmp_path):
    path = tmp_path / "training.pt"
    state = {"w": torch.ones(2)}
    torch.save({"net": state, "ema": {"w": torch.zeros(2)}, "epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"net, ema, epoch.*--key.*'net', 'ema'"):
        checkpoints.read(path)
    with pytest.raises(CheckpointError, match=r"no state dict by the name of 'epoch'"):
        checkpoints.read(path, key="epoch")
    assert_same(checkpoints.read(path, key="ema").arrays, {"w": np.zeros(2, np.float32)})


# A file of MindSpore 2.10: save_checkpoint(SequentialCell([InstanceNorm2d(2)]),
# append_dict={"epoch": 3, "note": "hi"}, crc_check=True).
MINDSPORE_FILE = bytes.fromhex(
    "0a260a0d302e6d6f76696e675f6d65616e121508021207466c6f617433321a0800000000000000000a2a0a11"
    "302e6d6f76696e675f76617269616e6365121508021207466c6f617433321a080000803f0000803f0a200a07"
    "302e67616d6d61121508021207466c6f617433321a080000803f0000803f0a1f0a06302e6265746112150802"
    "1207466c6f617433321a0800000000000000000a1a0a0565706f636812111205496e7436341a080300000000"
    "0000000a190a046e6f74651211080012037374721a0868000000690000006372635f6e756d000000000000ec"
    "badf05"
)


def test_mindspores_own_file_is_read(tmp_path):
    path = tmp_path / "net.ckpt"
    path.write_bytes(MINDSPORE_FILE)
    arrays, metadata = checkpoints.read(path)
    zeros, ones = np.zeros(2, np.float32), np.ones(2, np.float32)
    assert_same(
        arrays,
        {
            "0.moving_mean": zeros,
            "0.moving_variance": ones,
            "0.gamma": ones,
            "0.beta": zeros,
            "epoch": np.array(3),
        },
    )
    assert metadata == {"note": "hi"}


def test_a_damaged_mindspore_file_is_refused(tmp_path):
    path = tmp_path / "net.ckpt"
    broken = bytearray(MINDSPORE_FILE)
    broken[30] ^= 1
    path.write_bytes(broken)
    with pytest.raises(CheckpointError, match="check sum is wrong"):
        checkpoints.read(path)


def test_a_large_array_comes_in_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_SLICE", 10)
    path = tmp_path / "net.ckpt"
    array = normal(5, 3)
    path.write_bytes(checkpoints.dumps(path, {"a": array, "b": array[0]}))
    assert path.read_bytes().count(b"Float64") == 12 + 3
    assert_same(checkpoints.read(path).arrays, {"a": array, "b": array[0]})


def test_a_scalar_of_mindspore_1(tmp_path):
    path = tmp_path / "net.ckpt"
    path.write_bytes(
        checkpoints.dumps(path, {"a": np.array([3.0])}).replace(b"\x08\x01", b"\x08\x00")
    )
    assert_same(checkpoints.read(path).arrays, {"a": np.array(3.0)})


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"\x0a\x05nonsense", b"PK\x03\x04" + bytes(30)])
def test_files_of_something_else(suffix, content, tmp_path):
    path = tmp_path / f"state{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(repr(str(path)))):
        checkpoints.read(path)


def test_pickles_are_not_run(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(CheckpointError, match=r"expected what torch.save\(model.state_dict"):
        checkpoints.read(path)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(CheckpointError, match=r"not an \.npz file of arrays"):
        checkpoints.read(tmp_path / "objects.npz")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.safetensors", np.ones(2, np.complex64), "cannot hold a, of dtype complex64"),
        ("a.ckpt", np.ones(2, np.complex64), "cannot hold a, of dtype complex64"),
        ("a.ckpt", np.ones((0, 2)), "cannot hold a, which is empty"),
        ("a.zip", np.ones(2), r"suffix '\.zip', expected one of \.safetensors, \.npz"),
    ],
)
def test_what_a_format_cannot_hold(name, array, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoints.dumps(Path(name), {"a": array})


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(checkpoints.importlib, "import_module", missing)
    for suffix, package, how in (
        (".pt", "torch", "torch"),
        (".ckpt", "protobuf", r'"instnorm\[convert\]"'),
        (".safetensors", "safetensors", r'"instnorm\[convert\]"'),
    ):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"x")
        with pytest.raises(CheckpointError, match=f"takes {package}, .*: pip install {how}"):
            checkpoints.read(path)


# --- the command --------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A file with a conv, a norm and some metadata."""
    path = tmp_path / "in.safetensors"
    state = {
        "conv.weight": normal(4, 2, 3, 3).astype(np.float32),
        "conv.bias": np.ones(4, np.float32),
        "norm.weight": normal(4).astype(np.float32),
        "norm.bias": normal(4, seed=1).astype(np.float32),
    }
    save_file(state, path, {"note": "mine", "format": "pt"})
    return path, state


def run(*arguments):
    return cli.main(["convert", *map(str, arguments)])


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_there_and_back(saved, suffix, tmp_path, capsys):
    source, state = saved
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.safetensors"
    assert run(source, there, "--to", "mindspore", "--norms", "norm") == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  norm\.weight -> norm\.gamma$", printed, re.M)
    assert re.search(r"^  \(new\) +-> norm\.moving_mean$", printed, re.M)
    assert "2 entries unchanged" in printed
    assert ("metadata left out: note" in printed) == (suffix in (".npz", ".pt", ".pth"))
    assert run(there, back, "--to", "pytorch", "--norms", "n*") == 0
    assert_same(dict(sorted(load_file(back).items())), dict(sorted(state.items())))
    if suffix in (".safetensors", ".ckpt"):
        with safe_open(back, framework="numpy") as file:
            assert file.metadata() == {"note": "mine", "format": "pt"}


def test_a_file_may_be_converted_in_place(saved):
    path, _ = saved
    assert run(path, path, "--to", "mindspore", "--norms", "*") == 0
    assert "norm.gamma" in load_file(path)


def test_running_statistics_in_a_file(tmp_path, capsys):
    path, out = tmp_path / "in.pt", tmp_path / "out.ckpt"
    torch.save(torch.nn.InstanceNorm2d(3, track_running_stats=True).state_dict(), path)
    assert run(path, out, "--to", "mindspore") == 2
    assert "--running-stats drop" in capsys.readouterr().err
    assert not out.exists()
    assert run(path, out, "--to", "mindspore", "--running-stats", "drop") == 0
    assert "running_mean        -> (left out)" in capsys.readouterr().out
    assert run(path, out, "--to", "mindspore", "--running-stats", "keep") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: IN, OUT, --to"),
        (["{in}", "{out}", "--to", "jax"], "argument --to: invalid choice: 'jax'"),
        (
            ["{in}", "{out}", "--to", "mindspore.mint"],
            r"cannot tell whether these .* norm\.\w+, norm\.\w+ \(of InstanceNorm or GroupNorm",
        ),
        (["{in}", "{out}", "--to", "mindspore", "--norms", "x"], "'x' fits no layer"),
        (["{in}", "{out}", "--to", "mindspore", "--key", "x"], "key has a use only for PyTorch"),
        (["{in}.no", "{out}", "--to", "pytorch"], "suffix '.no', expected"),
        (["no.npz", "{out}", "--to", "pytorch"], "'no.npz' cannot be read .No such file"),
        (
            ["{in}", "/nowhere/at.npz", "--to", "mindspore", "--norms", "*"],
            "argument OUT: cannot write to '/nowhere/at.npz'",
        ),
    ],
)
def test_bad_input_ends_in_one_line(arguments, message, saved, tmp_path, capsys):
    source, out = saved[0], tmp_path / "out.npz"
    before = sorted(os.listdir(tmp_path))
    assert run(*(a.replace("{in}", str(source)).replace("{out}", str(out)) for a in arguments)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("instnorm: error: ")
    assert error.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before
