"""Numba: loops over the rows in parallel, as one writes them by hand, with fast mathematics."""

import numba
import numpy as np
from numba import njit, prange

from .peer import EPS, NotSupportedError, Peer

VERSION = numba.__version__


class Loops(Peer):
    name, label = "numba", "Numba"

    def forward(self, case):
        x, _ = _rows(case)
        return lambda: (_forward(x, case.weight, case.bias, EPS)[0].reshape(case.shape),)

    def training(self, case):
        x, grad_output = _rows(case)

        def step():
            y, mean, rstd = _forward(x, case.weight, case.bias, EPS)
            grad_input, projections, sums = _backward(grad_output, x, case.weight, mean, rstd)
            return (
                y.reshape(case.shape),
                grad_input.reshape(case.shape),
                projections.reshape(case.shape[:2]).sum(0),
                sums.reshape(case.shape[:2]).sum(0),
            )

        return step


def _rows(case):
    if case.layout != "contiguous":
        raise NotSupportedError("its loops are written for rows in one piece")
    if case.dtype.itemsize == 2:
        raise NotSupportedError("it has no half precision on the CPU")
    rows = (case.shape[0] * case.shape[1], -1)
    return case.x.reshape(rows), case.grad_output.reshape(rows)


@njit(parallel=True, fastmath=True)
def _forward(x, weight, bias, eps):
    rows, length = x.shape
    y = np.empty_like(x)
    means, rstds = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    for row in prange(rows):
        total = x.dtype.type(0)
        for i in range(length):
            total += x[row, i]
        mean = total / x.dtype.type(length)
        squares = x.dtype.type(0)
        for i in range(length):
            difference = x[row, i] - mean
            squares += difference * difference
        rstd = x.dtype.type(1 / np.sqrt(squares / length + eps))
        channel = row % weight.size
        scale, shift = rstd * weight[channel], bias[channel]
        for i in range(length):
            y[row, i] = (x[row, i] - mean) * scale + shift
        means[row], rstds[row] = mean, rstd
    return y, means, rstds


@njit(parallel=True, fastmath=True)
def _backward(grad_output, x, weight, means, rstds):
    rows, length = x.shape
    grad_input = np.empty_like(x)
    projections, sums = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    for row in prange(rows):
        mean, rstd = means[row], rstds[row]
        total, projection = x.dtype.type(0), x.dtype.type(0)
        for i in range(length):
            total += grad_output[row, i]
            projection += grad_output[row, i] * ((x[row, i] - mean) * rstd)
        scale = weight[row % weight.size] * rstd
        average = total / x.dtype.type(length)
        slope = projection / x.dtype.type(length) * rstd
        for i in range(length):
            centred = grad_output[row, i] - average - (x[row, i] - mean) * slope
            grad_input[row, i] = centred * scale
        projections[row], sums[row] = projection, total
    return grad_input, projections, sums


def peers(threads):
    numba.set_num_threads(threads)
    return [Loops()]
