"""Data sets and batches, beside torch's where these are not random."""

import numpy as np
import pytest
from helpers.beside_torch import torch

import instnorm
from instnorm import Tensor
from instnorm.utils.data import DataLoader, Dataset, TensorDataset, default_collate, random_split

pytestmark = pytest.mark.torch

X, Y = np.arange(14.0).reshape(7, 2), np.arange(7)


class Squares(Dataset):
    """Samples of several kinds."""

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError
        return {"x": np.full(2, index, np.float32), "y": (index, index / 2, f"no. {index}")}

    def __len__(self):
        return 5


def plain(batch):
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return [plain(part) for part in batch]
    return batch if isinstance(batch, str) else (batch.numpy().dtype, batch.tolist())


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
@pytest.mark.parametrize("kind", ["tensors", "own", "list"])
def test_batches_in_order_are_torchs(kind, batch_size, drop_last):
    results = []
    for library, loader in ((instnorm, DataLoader), (torch, torch.utils.data.DataLoader)):
        tensors = library.from_numpy(X), library.from_numpy(Y)
        datasets = {
            "tensors": lambda: library.utils.data.TensorDataset(*tensors),  # noqa: B023
            "own": Squares,
            "list": lambda: [(1.5, i) for i in range(4)],
        }
        batches = loader(datasets[kind](), batch_size, drop_last=drop_last)
        results.append((len(batches), [plain(batch) for batch in batches]))
    assert results[0] == results[1]


def test_shuffling_takes_every_sample_once_in_an_order_of_each_epoch():
    instnorm.manual_seed(0)
    loader = DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True)
    epochs = [[(x.tolist(), y.tolist()) for x, y in loader] for _ in range(3)]
    orders = [[label for _, ys in epoch for label in ys] for epoch in epochs]
    assert all(sorted(order) == Y.tolist() for order in orders)
    assert len(set(map(tuple, orders))) == 3
    for epoch in epochs:
        for xs, ys in epoch:
            assert xs == X[ys].tolist()
    instnorm.manual_seed(0)
    assert [[(x.tolist(), y.tolist()) for x, y in loader] for _ in range(3)] == epochs


def test_a_seed_makes_orders_of_its_own():
    def orders(seed):
        loader = DataLoader(TensorDataset(Y), batch_size=7, shuffle=True, seed=seed)
        return [batch.tolist() for _ in range(2) for (batch,) in loader]

    assert orders(3) == orders(3)
    assert orders(3) != orders(4)
    assert orders(3)[0] != orders(3)[1]


def test_collate_fn_and_subclasses_get_single_samples():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            (sample,) = super().__getitem__(index)
            assert sample.ndim == 0
            return sample * 2

    assert [b.tolist() for b in DataLoader(Doubled(Y), 4)] == [[0, 2, 4, 6], [8, 10, 12]]
    assert list(DataLoader(TensorDataset(Y), 4, collate_fn=len)) == [4, 3]


ERRORS = {
    "lengths": (lambda: TensorDataset(X, Y[1:]), ValueError, r"one length, got lengths \[7, 6\]"),
    "nothing": (TensorDataset, ValueError, r"got lengths \[\]"),
    "batch_size": (lambda: DataLoader(Y, 0), ValueError, "batch_size must be an integer of at"),
    "batch_size float": (lambda: DataLoader(Y, 1.5), ValueError, "got 1.5"),
    "workers": (lambda: DataLoader(Y, num_workers=2), NotImplementedError, "num_workers=2"),
    "seed": (lambda: DataLoader(Y, seed="a"), TypeError, "seed must be an integer, got 'a'"),
    "split": (lambda: random_split(Y, [3, 3]), ValueError, r"lengths is \[3, 3\], expected a sum"),
    "samples": (lambda: default_collate([object()]), TypeError, "got object; pass collate_fn"),
    "getitem": (lambda: Dataset()[0], NotImplementedError, "must define __getitem__"),
    "len": (lambda: len(Dataset()), NotImplementedError, "must define __len__"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_argument(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


def test_tensors_are_shared():
    assert TensorDataset(Tensor(X))[2][0].data.base is not None
    assert TensorDataset(X).tensors[0].data is X


def test_a_random_split_has_every_sample_once():
    instnorm.manual_seed(0)
    parts = random_split(TensorDataset(X, Y), [4, 3])
    assert [len(part) for part in parts] == [4, 3]
    found = [y.item() for part in parts for _, y in part]
    assert sorted(found) == Y.tolist()
    assert found != Y.tolist()
    for x, y in parts[1]:
        assert x.tolist() == X[y.item()].tolist()
    assert sum(len(batch[1]) for batch in DataLoader(parts[0], 3)) == 4


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.4, 0.3, 0.3], [1.0]])
def test_shares_are_rounded_as_in_torch(shares):
    expected = torch.utils.data.random_split(range(7), shares)
    assert [len(p) for p in random_split(range(7), shares)] == [len(p) for p in expected]


def test_a_seed_makes_a_split_of_its_own():
    def split(seed):
        return [list(part) for part in random_split(range(20), [15, 5], seed=seed)]

    assert split(1) == split(1)
    assert split(1) != split(2)


def test_options_that_change_nothing_are_taken():
    loader = DataLoader(TensorDataset(Y), 4, pin_memory=True, persistent_workers=False)
    assert [batch.tolist() for (batch,) in loader] == [Y[:4].tolist(), Y[4:].tolist()]
