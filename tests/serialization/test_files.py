"""save and load: what comes back, what is refused, and what others read."""

import os

import numpy as np
import pytest
import safetensors.numpy

import instnorm
from instnorm import Tensor, nn, optim

NESTED = {
    "net": {"weight": Tensor(np.arange(6.0).reshape(2, 3).T), "empty": np.zeros((0, 2), "f4")},
    3: [1, 2.5, "text", None, True, (Tensor(np.int64(7)),)],
    "lr": np.float64(0.1),
    "nothing": {},
}


def plain(value):
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Tensor | np.ndarray):
        return str(value.dtype), value.shape, value.tolist()
    return value


OBJECTS = {
    "nested": NESTED,
    "a Tensor": Tensor([1.0, 2.0]),
    "a list": [Tensor([True]), [], {}],
    "names that look alike": {"a": {"b": Tensor([1.0])}, "a.b": [Tensor([2.0])]},
    "keys that look alike": {1: Tensor([1.0]), "1": [2]},
}


@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_saved_comes_back(name, tmp_path):
    instnorm.save(OBJECTS[name], tmp_path / "file")
    assert plain(instnorm.load(str(tmp_path / "file"))) == plain(OBJECTS[name])
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "?", "bfloat16"])
def test_dtypes(dtype, tmp_path):
    dtype = instnorm.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    instnorm.save({"x": np.ones(3, dtype)}, tmp_path / "file")
    assert instnorm.load(tmp_path / "file")["x"].dtype == dtype


def test_state_dicts_are_plain_safetensors_files(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, affine=True))
    instnorm.save(net.state_dict(), tmp_path / "ours")
    found = safetensors.numpy.load_file(tmp_path / "ours")
    assert plain(found) == plain(dict(net.state_dict()))
    safetensors.numpy.save_file(found, tmp_path / "theirs", {"format": "np"})
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, affine=True))
    other.load_state_dict(instnorm.load(tmp_path / "theirs"))
    assert plain(other.state_dict()) == plain(net.state_dict())


def test_training_goes_on_where_it_was_saved(tmp_path):
    def trained(steps, state=None):
        instnorm.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = optim.AdamW(net.parameters(), lr=0.05)
        schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        parts = {"net": net, "optimizer": optimizer, "schedule": schedule}
        for name, part in parts.items():
            if state is not None:
                part.load_state_dict(state[name])
        for step in steps:
            x = instnorm.tensor(np.random.default_rng(step).random((5, 3)), np.float32)
            optimizer.zero_grad()
            (net(x) ** 2).mean().backward()
            optimizer.step()
            schedule.step()
        return {name: part.state_dict() for name, part in parts.items()}

    instnorm.save(trained(range(4)), tmp_path / "file")
    state = instnorm.load(tmp_path / "file", map_location="cpu", weights_only=True)
    resumed = trained(range(4, 8), state)
    assert plain(resumed) == plain(trained(range(8)))


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "file"
    instnorm.save({"x": Tensor([1.0])}, path)
    with pytest.raises(TypeError, match=r"x\.1 is a object, which cannot be saved"):
        instnorm.save({"x": [1, object()]}, path)
    with pytest.raises(TypeError, match=r"keys must be str or int to be saved, got 1\.5"):
        instnorm.save({1.5: 1}, path)
    assert instnorm.load(path)["x"].tolist() == [1]
    assert os.listdir(tmp_path) == ["file"]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"not safetensors, though long enough")
    with pytest.raises(ValueError, match="is no safetensors file"):
        instnorm.load(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        instnorm.load(tmp_path / "missing")
