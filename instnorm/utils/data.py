"""Data sets, and batches of their samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from instnorm.creation import generator, generator_of, stack
from instnorm.tensor import Tensor, tensor

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "default_collate", "random_split"]


class Dataset:
    """Base of data sets: a subclass defines ``__getitem__`` and ``__len__``."""

    def __getitem__(self, index: int) -> Any:
        """Return one sample."""
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__()")

    def __len__(self) -> int:
        """Return the number of samples."""
        raise NotImplementedError(f"{type(self).__name__} must define __len__()")


class TensorDataset(Dataset):
    """Samples that are entries of the first axis of Tensors.

    Parameters
    ----------
    *tensors : Tensor or ndarray
        Of the same length.

    Raises
    ------
    ValueError
        If the lengths differ, or nothing is given.

    Examples
    --------
    >>> import instnorm
    >>> from instnorm.utils.data import TensorDataset
    >>> data = TensorDataset(instnorm.arange(3.0), instnorm.tensor([0, 1, 0]))
    >>> data[1]
    (tensor(1.), tensor(1))
    """

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tuple([t if isinstance(t, Tensor) else Tensor(t) for t in tensors])
        lengths = [len(t) for t in self.tensors]
        if not lengths or len(set(lengths)) > 1:
            raise ValueError(f"tensors must be of one length, got lengths {lengths}")

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        """Return one sample, or for a slice or an array of integers several, stacked."""
        return tuple([t[index] for t in self.tensors])

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset):
    """Some samples of a data set: those at `indices`, in their order."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: int) -> Any:
        """Return one sample."""
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Any, lengths: Sequence[float], *, seed: int | None = None
) -> list[Subset]:
    """Cut a data set at random into parts that have no sample in common.

    Parameters
    ----------
    dataset : Dataset
        Or whatever has ``__getitem__`` and ``__len__``.
    lengths : sequence of int, or of float
        How many samples each part has, or its share of them; what rounding leaves over goes
        to the first parts, one sample each.
    seed : int, optional
        By default the order is drawn from the random numbers of `instnorm.manual_seed`.

    Returns
    -------
    list of Subset

    Raises
    ------
    ValueError
        If the lengths do not add up to that of the data set, or the shares to 1.

    Examples
    --------
    >>> from instnorm.utils.data import random_split
    >>> [len(part) for part in random_split(range(10), [0.75, 0.25])]
    [8, 2]
    """
    count = len(dataset)
    if math.isclose(sum(lengths), 1) and count != 1:
        sizes = [math.floor(count * share) for share in lengths]
        for i in range(count - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [int(length) for length in lengths]
    if sum(sizes) != count:
        raise ValueError(f"lengths is {list(lengths)}, expected a sum of {count}, or of 1")
    order = (generator() if seed is None else generator_of(seed)).permutation(count).tolist()
    ends = np.cumsum(sizes, dtype=int).tolist()
    return [Subset(dataset, order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


class DataLoader:
    """Batches of a data set's samples, in order or shuffled anew in each epoch.

    Parameters
    ----------
    dataset : Dataset
        Or whatever has ``__getitem__`` and ``__len__``.
    batch_size : int, default 1
    shuffle : bool, default False
        Whether the order is random; by default it is drawn from the random numbers of
        `instnorm.manual_seed`.
    num_workers : {0}, default 0
        There are no worker processes.
    collate_fn : callable, optional
        Makes a batch of a list of samples; by default `default_collate`.
    drop_last : bool, default False
        Whether to leave out the last batch if it is smaller.
    pin_memory, persistent_workers : bool, default False
        For PyTorch's sake: they change nothing.
    seed : int, optional
        Of the order: every loader with this seed gives the same orders, epoch by epoch.

    Raises
    ------
    NotImplementedError
        If worker processes are asked for.
    ValueError
        If `batch_size` is less than 1.

    Examples
    --------
    >>> import instnorm
    >>> from instnorm.utils.data import DataLoader, TensorDataset
    >>> loader = DataLoader(TensorDataset(instnorm.arange(5)), batch_size=2)
    >>> len(loader), [batch.tolist() for batch, in loader]
    (3, [[0, 1], [2, 3], [4]])
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        seed: int | None = None,
    ) -> None:
        if num_workers != 0:
            raise NotImplementedError(
                f"num_workers={num_workers} is not supported by DataLoader, which has no worker "
                "processes; expected 0"
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self._generator = None if seed is None else generator_of(seed)

    def __iter__(self) -> Iterator[Any]:
        count = len(self.dataset)
        order = np.arange(count)
        if self.shuffle:
            order = (self._generator or generator()).permutation(count)
        for batch in range(len(self)):
            yield self._batch(order[batch * self.batch_size : (batch + 1) * self.batch_size])

    def _batch(self, indices: Any) -> Any:
        # Tensors give many entries at once; those of a subclass may do something for each.
        if type(self.dataset) is TensorDataset and self.collate_fn is None:
            return list(self.dataset[indices])
        samples = [self.dataset[i] for i in indices.tolist()]
        return (self.collate_fn or default_collate)(samples)

    def __len__(self) -> int:
        whole = len(self.dataset) / self.batch_size
        return math.floor(whole) if self.drop_last else math.ceil(whole)


def default_collate(samples: Sequence[Any]) -> Any:
    """Make one batch of samples: Tensors, arrays and numbers are stacked, what holds them is kept.

    Raises
    ------
    TypeError
        If a sample is, or holds, something else than Tensors, arrays, numbers, strings,
        and tuples, lists and dicts of these.
    """
    first = samples[0]
    if isinstance(first, Tensor):
        return stack(list(samples))
    if isinstance(first, np.ndarray | np.generic):
        return Tensor(np.stack(samples))
    if isinstance(first, float):  # float64, as in PyTorch
        return tensor(samples, np.float64)
    if isinstance(first, int):
        return tensor(samples)
    if isinstance(first, str | bytes):
        return list(samples)
    if isinstance(first, dict):
        return {key: default_collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple | list):
        return [default_collate(column) for column in zip(*samples, strict=True)]
    raise TypeError(
        f"a batch is made of Tensors, arrays, numbers, strings, tuples, lists and dicts, "
        f"got {type(first).__name__}; pass collate_fn"
    )
