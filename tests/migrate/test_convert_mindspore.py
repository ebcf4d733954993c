"""Files for MindSpore, read by MindSpore itself, and its own read back."""

import ml_dtypes
import numpy as np
import pytest

from instnorm import checkpoints, convert, nn

mindspore = pytest.importorskip("mindspore")

pytestmark = pytest.mark.mindspore


def pytorchs():
    """A network with PyTorch's names, and values of its own."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.InstanceNorm2d(4, affine=True),
        nn.Sequential(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
    )
    random = np.random.default_rng(0)
    for tensor in [*net.parameters(), *net.buffers()]:
        if tensor.dtype == np.float32:
            tensor.data[...] = random.normal(size=tensor.shape)
    return net


def mindspores():
    m = mindspore.nn
    return m.SequentialCell(
        m.Conv2d(1, 4, 3, has_bias=True),
        m.InstanceNorm2d(4),
        m.SequentialCell(m.InstanceNorm2d(4)),
    )


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_there_and_back(suffix, tmp_path):
    source, net = pytorchs(), mindspores()
    there, back = tmp_path / f"there.{suffix}", tmp_path / f"back.{suffix}"
    state = convert.state_dict(
        source.state_dict(), to="mindspore", model=source, running_stats="keep"
    ).state
    there.write_bytes(checkpoints.dumps(there, state, flavour="mindspore"))
    loaded = mindspore.load_checkpoint(str(there), format=suffix)
    assert mindspore.load_param_into_net(net, loaded, strict_load=True) == ([], [])
    for name, parameter in net.parameters_dict().items():
        np.testing.assert_array_equal(parameter.asnumpy(), state[name])

    mindspore.save_checkpoint(net, str(back), format=suffix, crc_check=True)
    returned = convert.state_dict(
        checkpoints.read(back).arrays, to="pytorch", model=net, running_stats="keep"
    ).state
    # The first norm tracks nothing, and what MindSpore gave it is at its first values.
    for name, value in source.state_dict().items():
        np.testing.assert_array_equal(returned[name], value)
        assert returned[name].dtype == value.dtype


@pytest.mark.parametrize("affine", [True, False])
def test_the_state_of_one_layer(affine, tmp_path):
    path = tmp_path / "layer.ckpt"
    layer = convert.layer(nn.InstanceNorm2d(3, affine=affine), to="mindspore")
    layer.gamma.data[...] = [1, 2, 3]
    path.write_bytes(checkpoints.dumps(path, layer.state_dict()))
    theirs = mindspore.nn.InstanceNorm2d(3, affine=affine)
    loaded = mindspore.load_checkpoint(str(path))
    assert mindspore.load_param_into_net(theirs, loaded) == ([], [])
    assert theirs.gamma.asnumpy().tolist() == [1, 2, 3]
    assert list(convert.state_dict(loaded, to="pytorch").state) == ["weight", "bias"]


def test_dtypes(tmp_path):
    path = tmp_path / "all.ckpt"
    dtypes = ["float16", "float32", "float64", "int8", "int64", "uint8", "bool"]
    arrays = {name: np.arange(6).reshape(2, 3).astype(name) for name in dtypes}
    arrays["scalar"] = np.array(2.5)
    halves = np.array([1.5, -2.0]).astype(ml_dtypes.bfloat16)
    path.write_bytes(checkpoints.dumps(path, {**arrays, "bfloat16": halves}, {"note": "hi"}))
    loaded = mindspore.load_checkpoint(str(path))
    for name, array in arrays.items():
        found = loaded[name].asnumpy()
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)
    assert loaded["bfloat16"].dtype == mindspore.bfloat16
    assert loaded["bfloat16"].astype(mindspore.float32).asnumpy().tolist() == [1.5, -2.0]
    assert loaded["note"] == "hi"

    mindspore.save_checkpoint(
        [{"name": name, "data": loaded[name]} for name in (*arrays, "bfloat16")], str(path)
    )
    again = checkpoints.read(path).arrays
    for name, array in {**arrays, "bfloat16": halves}.items():
        assert (again[name].dtype, again[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(again[name], array)
