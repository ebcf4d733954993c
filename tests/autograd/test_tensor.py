"""Every operation and method of Tensor: values and gradients against torch and differences."""

import copy
import pickle
import re

import ml_dtypes
import numpy as np
import pytest
from helpers.beside_torch import torch
from helpers.tensors import normal

import instnorm
from instnorm import Tensor, no_grad, tensor
from instnorm import _primitives as ops
from instnorm.testing import gradcheck, gradgradcheck

pytestmark = pytest.mark.torch

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def positive(*shape, seed=0):
    return np.exp(normal(*shape, seed=seed)) + 0.1


def away_from_zero(*shape, seed=0):
    x = normal(*shape, seed=seed)
    return x + np.copysign(0.2, x)


def mask_for(t, mask):
    """A mask in the form that the library of `t` takes."""
    return torch.tensor(mask) if isinstance(t, torch.Tensor) else mask


def library(t):
    return torch if isinstance(t, torch.Tensor) else instnorm


MASK = np.array([[True, False, True], [False, True, False]])

# name: function of Tensors of either library, arrays
OPERATIONS = {
    "add": (lambda a, b: a + b, [normal(2, 3), normal(2, 3, seed=1)]),
    "add broadcast": (lambda a, b: a + b, [normal(2, 1), normal(3)]),
    "add number": (lambda a: a + 2.5, [normal(2, 3)]),
    "number add": (lambda a: 2.5 + a, [normal(2, 3)]),
    "add to a scalar": (lambda a, b: a + b, [normal(), normal(2, 3)]),
    "sub": (lambda a, b: a - b, [normal(2, 3), normal(2, 3, seed=1)]),
    "sub broadcast": (lambda a, b: a - b, [normal(3), normal(4, 1, 3)]),
    "number sub": (lambda a: 2 - a, [normal(2, 3)]),
    "mul": (lambda a, b: a * b, [normal(2, 3), normal(2, 3, seed=1)]),
    "mul broadcast": (lambda a, b: a * b, [normal(1, 3), normal(2, 1, 1)]),
    "mul of the same": (lambda a: a * a, [normal(2, 3)]),
    "number mul": (lambda a: -3 * a * True, [normal(2, 3)]),
    "div": (lambda a, b: a / b, [normal(2, 3), away_from_zero(2, 3)]),
    "div broadcast": (lambda a, b: a / b, [normal(3), away_from_zero(2, 1)]),
    "div by number": (lambda a: a / 4, [normal(2, 3)]),
    "number div": (lambda a: 4 / a, [away_from_zero(2, 3)]),
    "neg": (lambda a: -a, [normal(2, 3)]),
    "pow": (lambda a, b: a**b, [positive(2, 3), normal(2, 3, seed=1)]),
    "pow broadcast": (lambda a, b: a**b, [positive(3), normal(2, 1, seed=1)]),
    "square": (lambda a: a**2, [normal(2, 3)]),
    "cube": (lambda a: a**3.0, [normal(2, 3)]),
    "power 1": (lambda a: a**1, [normal(2, 3)]),
    "power 0": (lambda a: a**0, [normal(2, 3)]),
    "power -1.5": (lambda a: a**-1.5, [positive(2, 3)]),
    "number pow": (lambda a: 2.0**a, [normal(2, 3)]),
    "matmul": (lambda a, b: a @ b, [normal(2, 3), normal(3, 4)]),
    "matmul vector": (lambda a, b: a @ b, [normal(2, 3), normal(3)]),
    "vector matmul": (lambda a, b: a @ b, [normal(3), normal(3, 4)]),
    "inner product": (lambda a, b: a @ b, [normal(3), normal(3, seed=1)]),
    "matmul batch": (lambda a, b: a @ b, [normal(2, 1, 2, 3), normal(4, 3, 2)]),
    "matmul batch vector": (lambda a, b: a @ b, [normal(2, 2, 3), normal(3)]),
    "vector matmul batch": (lambda a, b: a @ b, [normal(3), normal(2, 4, 3, 2)]),
    "matmul of the same": (lambda a: a @ a.T, [normal(2, 3)]),
    "exp": (lambda a: a.exp(), [normal(2, 3)]),
    "log": (lambda a: a.log(), [positive(2, 3)]),
    "sqrt": (lambda a: a.sqrt(), [positive(2, 3)]),
    "abs": (lambda a: a.abs(), [away_from_zero(2, 3)]),
    "builtin abs": (abs, [away_from_zero(2, 3)]),
    "tanh": (lambda a: a.tanh(), [normal(2, 3)]),
    "softmax": (lambda a: a.softmax(1), [normal(2, 3)]),
    "softmax 0": (lambda a: a.softmax(dim=0), [normal(2, 3)]),
    "softmax of the last axis": (lambda a: a.softmax(-1), [normal(2, 3, 4)]),
    "softmax of a scalar": (lambda a: a.softmax(0), [normal()]),
    "log_softmax": (lambda a: a.log_softmax(-1), [normal(2, 3)]),
    "sigmoid": (lambda a: a.sigmoid(), [normal(2, 3) * 4]),
    "sum": (lambda a: a.sum(), [normal(2, 3, 4)]),
    "sum 1": (lambda a: a.sum(1), [normal(2, 3, 4)]),
    "sum -1 keepdim": (lambda a: a.sum(-1, keepdim=True), [normal(2, 3, 4)]),
    "sum two": (lambda a: a.sum((0, -1)), [normal(2, 3, 4)]),
    "sum two keepdim": (lambda a: a.sum(dim=(2, 0), keepdim=True), [normal(2, 3, 4)]),
    "sum of a scalar": (lambda a: a.sum(), [normal()]),
    "mean": (lambda a: a.mean(), [normal(2, 3, 4)]),
    "mean 1": (lambda a: a.mean(1), [normal(2, 3, 4)]),
    "mean two keepdim": (lambda a: a.mean((1, 2), keepdim=True), [normal(2, 3, 4)]),
    "max": (lambda a: a.max(), [normal(2, 3)]),
    "max 0": (lambda a: a.max(dim=0).values, [normal(2, 3)]),
    "max -1 keepdim": (lambda a: a.max(-1, keepdim=True).values, [normal(2, 3, 2)]),
    "max unpacked": (lambda a: a.max(1)[0], [normal(2, 3)]),
    "max of a scalar": (lambda a: a.max(), [normal()]),
    "max 0 of a scalar": (lambda a: a.max(dim=0).values, [normal()]),
    "amax": (lambda a: a.amax((0, 2)), [normal(2, 3, 4)]),
    "amax keepdim": (lambda a: a.amax(1, keepdim=True), [normal(2, 3, 4)]),
    "reshape": (lambda a: a.reshape(3, 4), [normal(2, 6)]),
    "reshape tuple": (lambda a: a.reshape((4, -1)), [normal(2, 6)]),
    "reshape to scalar": (lambda a: a.reshape(()), [normal(1, 1)]),
    "reshape of a transposed": (lambda a: a.T.reshape(-1), [normal(2, 3)]),
    "flatten": (lambda a: a.flatten(), [normal(2, 3, 4)]),
    "flatten 1": (lambda a: a.flatten(1), [normal(2, 3, 4)]),
    "flatten 0 -2": (lambda a: a.flatten(0, -2), [normal(2, 3, 4)]),
    "flatten a scalar": (lambda a: a.flatten(), [normal()]),
    "transpose": (lambda a: a.transpose(0, 2), [normal(2, 3, 4)]),
    "transpose -1 -2": (lambda a: a.transpose(-1, -2), [normal(2, 3, 4)]),
    "transpose same": (lambda a: a.transpose(1, 1), [normal(2, 3)]),
    "transpose a scalar": (lambda a: a.transpose(0, -1), [normal()]),
    "permute": (lambda a: a.permute(2, 0, 1), [normal(2, 3, 4)]),
    "permute tuple": (lambda a: a.permute((1, -1, 0)), [normal(2, 3, 4)]),
    "T": (lambda a: a.T, [normal(2, 3)]),
    "broadcast_to": (lambda a: a.broadcast_to((2, 4, 3)), [normal(4, 1)]),
    "where": (lambda a, b: a.where(mask_for(a, MASK), b), [normal(2, 3), normal(2, 3, seed=1)]),
    "where broadcast": (
        lambda a, b: a.where(mask_for(a, MASK), b),
        [normal(3), normal(2, 1)],
    ),
    "where number": (lambda a: a.where(mask_for(a, MASK), 7.0), [normal(2, 3)]),
    "index integer": (lambda a: a[1], [normal(3, 4)]),
    "index last": (lambda a: a[..., -1], [normal(3, 4)]),
    "index element": (lambda a: a[1, 2], [normal(3, 4)]),
    "index slices": (lambda a: a[1:, ::2], [normal(3, 4)]),
    "index None": (lambda a: a[:, None, 1], [normal(3, 4)]),
    "index list": (lambda a: a[[2, 0, 2]], [normal(3, 4)]),
    "index lists": (lambda a: a[[2, 0, 2], [1, 1, 1]], [normal(3, 4)]),
    "index list and slice": (lambda a: a[1:, [3, 3, 0]], [normal(3, 4)]),
    "index mask": (lambda a: a[mask_for(a, MASK)], [normal(2, 3)]),
    "index nothing": (lambda a: a[0:0], [normal(3, 4)]),
    "iterate": (lambda a: [row * row for row in a][1], [normal(3, 4)]),
    "clone": (lambda a: a.clone(), [normal(2, 3)]),
    "relu": (lambda a: a.relu(), [away_from_zero(2, 3)]),
    "clamp": (lambda a: a.clamp(-0.5, 0.6), [normal(2, 3)]),
    "clamp min": (lambda a: a.clamp(min=0.1), [normal(2, 3)]),
    "clamp max": (lambda a: a.clamp(max=0.1), [normal(2, 3)]),
    "matmul method": (lambda a, b: a.matmul(b), [normal(2, 3), normal(3, 4)]),
    "pow method": (lambda a: a.pow(3), [normal(2, 3)]),
    "var": (lambda a: a.var(), [normal(2, 3)]),
    "var 1": (lambda a: a.var(1), [normal(2, 3, 4)]),
    "var two keepdim": (lambda a: a.var((0, -1), keepdim=True), [normal(2, 3, 4)]),
    "var biased": (lambda a: a.var(0, unbiased=False), [normal(2, 3)]),
    "var biased of all": (lambda a: a.var(False), [normal(2, 3)]),
    "var correction": (lambda a: a.var(1, correction=2), [normal(2, 4)]),
    "std": (lambda a: a.std(), [normal(2, 3)]),
    "std 0": (lambda a: a.std(0, keepdim=True), [normal(3, 2)]),
    "norm": (lambda a: a.norm(), [normal(2, 3)]),
    "norm 1": (lambda a: a.norm(p=1), [away_from_zero(2, 3)]),
    "norm inf": (lambda a: a.norm(float("inf"), dim=1), [normal(2, 3)]),
    "norm 3": (lambda a: a.norm(3, 0, True), [away_from_zero(2, 3)]),
    "norm fro": (lambda a: a.norm("fro", (0, 1)), [normal(2, 3)]),
    "prod": (lambda a: a.prod(), [normal(2, 3)]),
    "prod 1": (lambda a: a.prod(1), [normal(2, 5)]),
    "prod 0 keepdim": (lambda a: a.prod(0, keepdim=True), [normal(4, 2)]),
    "prod of a scalar": (lambda a: a.prod(), [normal()]),
    "cumsum": (lambda a: a.cumsum(1), [normal(2, 4)]),
    "cumsum -3": (lambda a: a.cumsum(dim=-3), [normal(3, 2, 2)]),
    "min": (lambda a: a.min(), [normal(2, 3)]),
    "min 0": (lambda a: a.min(dim=0).values, [normal(2, 3)]),
    "amin": (lambda a: a.amin((0, 2)), [normal(2, 3, 4)]),
    "view": (lambda a: a.view(3, -1), [normal(2, 6)]),
    "view tuple": (lambda a: a.view((a.size(0), -1)), [normal(2, 3, 2)]),
    "squeeze": (lambda a: a.squeeze(), [normal(1, 3, 1)]),
    "squeeze 0": (lambda a: a.squeeze(0), [normal(1, 3, 1)]),
    "squeeze a longer axis": (lambda a: a.squeeze(1), [normal(1, 3)]),
    "squeeze two": (lambda a: a.squeeze((0, -1)), [normal(1, 3, 1)]),
    "unsqueeze": (lambda a: a.unsqueeze(1), [normal(2, 3)]),
    "unsqueeze -1": (lambda a: a.unsqueeze(-1), [normal(2, 3)]),
    "unsqueeze a scalar": (lambda a: a.unsqueeze(0), [normal()]),
    "expand": (lambda a: a.expand(4, -1, 3), [normal(2, 1)]),
    "repeat": (lambda a: a.repeat(2, 3), [normal(2, 2)]),
    "repeat new axes": (lambda a: a.repeat((3, 1, 2)), [normal(2, 2)]),
    "split": (lambda a: a.split(2, 1)[1], [normal(2, 5)]),
    "split, the last": (lambda a: a.split(2, dim=-1)[-1], [normal(2, 5)]),
    "split sizes": (lambda a: a.split([1, 4], 1)[1] * a.split([1, 4], 1)[0], [normal(2, 5)]),
    "chunk": (lambda a: a.chunk(3, 1)[1], [normal(2, 5)]),
    "contiguous": (lambda a: a.T.contiguous(), [normal(2, 3)]),
    "cpu": (lambda a: a.cpu().to("cpu"), [normal(2, 3)]),
    "cat": (lambda a, b: library(a).cat([a, b, a]), [normal(2, 3), normal(1, 3)]),
    "cat -1": (lambda a, b: library(a).cat((a, b), dim=-1), [normal(2, 3), normal(2, 1)]),
    "stack": (lambda a, b: library(a).stack([a, b], 1), [normal(2, 3), normal(2, 3, seed=1)]),
    "functions": (
        lambda a: library(a).flatten(library(a).relu(library(a).exp(a)), 1),
        [normal(2, 3, 2)],
    ),
    "add in words": (lambda a, b: a.add(b, alpha=0.5).sub(b, alpha=2), [normal(2, 3), normal(3)]),
    "arithmetic in words": (
        lambda a, b: library(a).add(a.mul(b).div(2.0), a.neg()),
        [normal(2, 3), normal(3)],
    ),
    "remainder": (lambda a: a % 0.75 + a.remainder(-0.4), [away_from_zero(2, 3)]),
    "mm": (lambda a, b: a.mm(b.t()) + library(a).mm(a, b.T), [normal(2, 3), normal(4, 3)]),
    "bmm": (lambda a, b: a.bmm(b), [normal(2, 3, 4), normal(2, 4, 2)]),
    "dot": (lambda a, b: a.dot(b), [normal(3), normal(3, seed=1)]),
    "t of a vector": (lambda a: a.t() * 2, [normal(3)]),
    "square in words": (lambda a: a.square(), [normal(2, 3)]),
    "sin": (lambda a: a.sin(), [normal(2, 3)]),
    "cos": (lambda a: a.cos(), [normal(2, 3)]),
    "sign": (lambda a: a.sign() * a, [away_from_zero(2, 3)]),
    "round": (lambda a: a.round() + a.floor() - a.ceil() + a, [away_from_zero(2, 3)]),
    "maximum": (lambda a, b: a.maximum(b), [normal(2, 3), normal(3)]),
    "minimum": (lambda a, b: a.minimum(b), [normal(2, 1), normal(3)]),
    "max of two": (lambda a, b: a.max(b) * a.min(b), [normal(2, 3), normal(2, 3, seed=1)]),
    "logsumexp": (lambda a: a.logsumexp(1), [normal(2, 3)]),
    "logsumexp two keepdim": (lambda a: a.logsumexp((0, 2), keepdim=True), [normal(2, 3, 2)]),
    "masked_fill": (lambda a: a.masked_fill(mask_for(a, MASK), 7.0), [normal(2, 3)]),
    "gather": (
        lambda a: a.gather(1, library(a).tensor([[0, 0, 2, 2], [1, 0, 0, 0]])),
        [normal(2, 3)],
    ),
    "gather 0": (lambda a: a.gather(0, library(a).tensor([[2, 0]])), [normal(3, 2)]),
    "index_select": (
        lambda a: a.index_select(-1, library(a).tensor([2, 0, 2])),
        [normal(2, 3)],
    ),
    "sort": (lambda a: a.sort().values * a.sort(0, descending=True)[0], [normal(3, 3)]),
    "topk": (lambda a: a.topk(2, dim=1).values, [normal(2, 4)]),
    "topk smallest": (lambda a: a.topk(2, 0, largest=False)[0], [normal(4, 2)]),
    "flip": (lambda a: a.flip(0) + a.flip([0, -1]) + a.flip(0, 1), [normal(2, 3)]),
    "tril": (lambda a: a.tril() + a.tril(1), [normal(3, 4)]),
    "triu": (lambda a: a.triu() + a.triu(diagonal=-1), [normal(2, 3, 4)]),
    "diag of a matrix": (lambda a: a.diag(), [normal(3, 2)]),
    "diag of a vector": (lambda a: a.diag(), [normal(3)]),
    "unbind": (lambda a: a.unbind(1)[1] * a.unbind(dim=-2)[0], [normal(2, 3, 4)]),
    "view_as": (lambda a, b: a.view_as(b) * b, [normal(2, 3), normal(6)]),
    "expand_as": (lambda a, b: a.expand_as(b) * b, [normal(3), normal(2, 3)]),
    "clip": (lambda a: a.clip(-0.5, 0.6), [normal(2, 3)]),
    "composed": (
        lambda a, b: ((a @ b).tanh() / (1 + (a * a).sum())).exp().mean(0),
        [normal(2, 3), normal(3, 2)],
    ),
}
# What torch has no equal of, or has under another name.
OURS = {
    "remainder by": (lambda a: 2.0 % a, [positive(2, 3)]),
    "remainder of both": (lambda a, b: a % b, [positive(2, 3), away_from_zero(3)]),
    "backwards": (lambda a: a[::-1, ::-2], [normal(3, 4)]),
    "T of three axes": (lambda a: a.T, [normal(2, 3, 4)]),
    "broadcast_to sizes": (lambda a: a.broadcast_to(2, 4, 3), [normal(4, 1)]),
    "erf": (lambda a: ops.Erf.apply(a), [normal(2, 3)]),
    "softplus": (lambda a: ops.Softplus.apply(a), [normal(2, 3)]),
    "root": (lambda a: ops.Root.apply(a), [positive(2, 3)]),
    "index tensor": (lambda a: a[tensor([1, 1, 0]), ::2], [normal(3, 4)]),
    "array add": (lambda a: np.ones((2, 1)) + a, [normal(3)]),
    "array mul": (lambda a: np.arange(3.0) * a * np.arange(2.0)[:, None], [normal(3)]),
    "array matmul": (lambda a: np.ones((2, 3)) @ a @ np.ones(4), [normal(3, 4)]),
    "array div": (lambda a: np.ones((2, 1)) / a, [away_from_zero(3)]),
    "array pow": (lambda a: np.full((2, 1), 1.5) ** a, [normal(3)]),
    "to": (lambda a: (a.to(np.float64) * 2).double(), [normal(3)]),
    "leaky relu": (lambda a: ops.LeakyReLU.apply(a, 0.1), [away_from_zero(2, 3)]),
    "relu": (lambda a: ops.LeakyReLU.apply(a, 0), [away_from_zero(2, 3)]),
    "log softmax": (lambda a: ops.LogSoftmax.apply(a, (1,)), [normal(2, 3)]),
    "log softmax 0": (lambda a: ops.LogSoftmax.apply(a, (0,)), [normal(2, 3)]),
}


def our_leaves(arrays):
    return [Tensor(np.array(a), requires_grad=True) for a in arrays]


@pytest.mark.parametrize("name", [*OPERATIONS, *OURS])
def test_gradients_are_the_central_differences(name):
    func, arrays = {**OPERATIONS, **OURS}[name]
    assert gradcheck(func, our_leaves(arrays), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [*OPERATIONS, *OURS])
def test_second_derivatives_are_the_central_differences(name):
    func, arrays = {**OPERATIONS, **OURS}[name]
    assert gradgradcheck(func, our_leaves(arrays), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_values_and_gradients_are_those_of_torch(name, dtype):
    func, arrays = OPERATIONS[name]
    arrays = [np.asarray(a, dtype) for a in arrays]
    ours, theirs = our_leaves(arrays), [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = func(*ours), func(*theirs)
    assert y.shape == tuple(expected.shape)
    assert y.dtype == dtype
    assert y.requires_grad
    tolerance = {"rtol": 40 * np.finfo(dtype).eps, "atol": 20 * np.finfo(dtype).eps}
    np.testing.assert_allclose(y.data, expected.detach(), **tolerance)
    cotangent = normal(*y.shape, seed=7).astype(dtype)
    y.backward(cotangent)
    expected.backward(torch.tensor(cotangent))
    for a, t in zip(ours, theirs, strict=True):
        assert a.grad.dtype == dtype
        np.testing.assert_allclose(a.grad.data, t.grad, **tolerance)


@pytest.mark.parametrize("name", [*OPERATIONS, *OURS])
def test_inputs_that_need_no_gradient_get_none(name):
    func, arrays = {**OPERATIONS, **OURS}[name]
    assert not func(*[Tensor(a) for a in arrays]).requires_grad
    if len(arrays) == 1:
        return
    for chosen in range(2):
        leaves = [Tensor(np.array(a), requires_grad=i == chosen) for i, a in enumerate(arrays)]
        everything = our_leaves(arrays)
        for operands in (leaves, everything):
            y = func(*operands)
            y.backward(normal(*y.shape, seed=7))
        assert leaves[1 - chosen].grad is None
        assert (leaves[chosen].grad.data == everything[chosen].grad.data).all()


# --- at the edges of the domain -----------------------------------------------

INF, NAN = np.inf, np.nan
EDGES = {
    "sqrt": (lambda a: a.sqrt(), [[0.0, 4.0, -1.0, INF, NAN, -0.0]]),
    "log": (lambda a: a.log(), [[0.0, 1.0, -1.0, INF, NAN]]),
    "exp": (lambda a: a.exp(), [[-1000.0, 1000.0, INF, -INF, NAN]]),
    "abs": (lambda a: a.abs(), [[0.0, -0.0, INF, -INF]]),
    "tanh": (lambda a: a.tanh(), [[1000.0, -1000.0, INF, -INF, NAN, 1e-9]]),
    "sigmoid": (lambda a: a.sigmoid(), [[-20.0, 20.0, -700.0, 1000.0, -1000.0, INF, -INF, NAN]]),
    "softmax": (lambda a: a.softmax(1), [[[1000.0, 0.0, -1000.0], [-INF, 0.0, 0.0]]]),
    "softmax nan": (lambda a: a.softmax(1), [[[1.0, NAN, 0.0], [INF, 0.0, 0.0]]]),
    "div": (lambda a, b: a / b, [[1.0, -1.0, 0.0, 1.0, NAN], [0.0, 0.0, 0.0, INF, 1.0]]),
    "div far": (lambda a, b: a / b, [[1e200, 1e-200], [1e180, 1e-180]]),
    "pow": (
        lambda a, b: a**b,
        [[0.0, 0.0, 0.0, 0.0, -2.0, -2.0, INF, 1.0], [0.0, 0.5, 1.0, 2.0, 3.0, 0.5, 0.5, INF]],
    ),
    "power 0": (lambda a: a**0, [[0.0, 1.0, NAN]]),
    "power 1": (lambda a: a**1, [[0.0, -1.0, INF]]),
    "square": (lambda a: a**2, [[0.0, -1.0, 1e-200]]),
    "power 0.5": (lambda a: a**0.5, [[0.0, 4.0, -1.0]]),
    "maximum tie": (lambda a, b: a.maximum(b), [[1.0, INF, NAN, 2.0], [1.0, INF, 1.0, NAN]]),
    "minimum tie": (lambda a, b: a.minimum(b), [[1.0, -INF, NAN, 2.0], [1.0, -INF, 1.0, NAN]]),
    "logsumexp": (lambda a: a.logsumexp(1), [[[1000.0, 999.0], [-1000.0, -INF]]]),
    "clamp": (lambda a: a.clamp(-1, 2), [[-1.0, 2.0, -2.0, 3.0, INF, -INF, NAN]]),
    "std of equal": (lambda a: a.std(), [[2.0, 2.0, 2.0]]),
    "norm of zeros": (lambda a: a.norm(), [[0.0, 0.0]]),
    "norm 3 of zeros": (lambda a: a.norm(3), [[0.0, 0.0]]),
    "prod with a zero": (lambda a: a.prod(), [[2.0, 0.0, 3.0, 4.0]]),
    "prod with two": (lambda a: a.prod(0), [[[2.0, 0.0], [0.0, 5.0], [0.0, 3.0]]]),
    "prod of nothing": (lambda a: a.prod(0), [[]]),
    "cumsum nan": (lambda a: a.cumsum(0), [[1.0, NAN, 3.0]]),
    "min tie": (lambda a: a.min(), [[1.0, 3.0, 1.0]]),
    "min dim tie": (lambda a: a.min(dim=1).values, [[[1.0, 1.0], [0.0, 2.0]]]),
    "relu": (lambda a: a.relu(), [[0.0, -0.0, 1.0, -INF, INF]]),
    "max tie": (lambda a: a.max(), [[1.0, 3.0, 3.0, 2.0, 3.0]]),
    "max nan": (lambda a: a.max(), [[1.0, NAN, 3.0]]),
    "max inf": (lambda a: a.max(), [[1.0, INF, INF, -INF]]),
    "amax tie": (lambda a: a.amax(1), [[[1.0, 1.0], [0.0, 2.0]]]),
    "max dim tie": (lambda a: a.max(dim=1).values, [[[1.0, 1.0], [0.0, 2.0]]]),
    "max dim nan": (lambda a: a.max(dim=0).values, [[1.0, NAN, NAN, 2.0]]),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_those_of_torch_and_warn_of_nothing(name):
    func, arrays = EDGES[name]
    ours = our_leaves(arrays)
    theirs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    y, expected = func(*ours), func(*theirs)
    np.testing.assert_allclose(y.data, expected.detach(), rtol=1e-13, atol=1e-320)
    cotangent = positive(*y.shape)
    y.backward(cotangent)
    expected.backward(torch.tensor(cotangent))
    for a, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.data, t.grad, rtol=1e-13, atol=1e-320)


def test_leaky_relu_and_log_softmax_at_the_edges():
    x = [0.0, -0.0, INF, -INF, NAN, -2.0]
    for slope in (0.0, 0.1, -0.5):
        (a,), t = our_leaves([x]), torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y, expected = ops.LeakyReLU.apply(a, slope), torch.nn.functional.leaky_relu(t, slope)
        y.backward(np.arange(6.0))
        expected.backward(torch.arange(6.0, dtype=torch.float64))
        if slope:
            np.testing.assert_array_equal(y.data, expected.detach())
        np.testing.assert_array_equal(a.grad.data, t.grad)
    y = ops.LogSoftmax.apply(Tensor([[1000.0, 0.0, -1000.0], [-INF, 0.0, 0.0]]), 1)
    np.testing.assert_allclose(y.data, [[0, -1000, -2000], [-INF, -np.log(2), -np.log(2)]], 1e-6)


def test_argmax_and_indices():
    x = normal(3, 4, 5)
    a, t = Tensor(x), torch.tensor(x)
    assert a.argmax().item() == t.argmax().item()
    for dim in range(-3, 3):
        for keepdim in (False, True):
            expected = t.argmax(dim, keepdim).tolist()
            assert a.argmax(dim, keepdim).tolist() == expected
            assert a.max(dim, keepdim).indices.tolist() == expected
            expected = t.argmin(dim, keepdim).tolist()
            assert a.argmin(dim, keepdim).tolist() == expected
            assert a.min(dim, keepdim).indices.tolist() == expected
    indices = Tensor(x, requires_grad=True).max(0).indices
    assert indices.dtype == np.int64
    assert not indices.requires_grad


# Functions of a Tensor of either library, whose results are outside the graph.
OUTSIDE = {
    "eq": lambda a: a.eq(a.round()),
    "ne": lambda a: a.ne(2),
    "lt": lambda a: a.lt(0.5),
    "le": lambda a: a.le(2.0),
    "gt": lambda a: a.gt(0),
    "ge": lambda a: library(a).ge(a, 2),
    "xor": lambda a: (a > 0) ^ (a > 1),
    "isnan": lambda a: (a.round() / a.round()).isnan(),
    "isinf": lambda a: (a / 0).isinf(),
    "isfinite": lambda a: library(a).isfinite(a / a),
    "any": lambda a: (a > 1).any(),
    "any 0 keepdim": lambda a: (a > 1).any(dim=0, keepdim=True),
    "all": lambda a: (a > -9).all(),
    "all -1": lambda a: (a > 0).all(-1),
    "all numbers": lambda a: a.round().all(1),
    "nonzero": lambda a: (a > 0).nonzero(),
    "nonzero as_tuple": lambda a: library(a).stack((a > 0).nonzero(as_tuple=True)),
    "where": lambda a: library(a).stack(library(a).where(a > 0)),
    "unique": lambda a: a.round().unique(),
    "argsort": lambda a: a.argsort(),
    "argsort 0 descending": lambda a: a.argsort(dim=0, descending=True),
    "indices of sort": lambda a: a.sort(descending=True).indices,
    "indices of topk": lambda a: a.topk(1, dim=-1)[1],
    "axis of a sum": lambda a: a.sum(axis=0) + library(a).mean(a, axis=(0, 1), keepdims=True)[0],
    "axis of extremes": lambda a: a.max(axis=1, keepdims=True).values + a.amin(axis=0),
    "axis of argmax": lambda a: a.argmax(axis=1) + (a > 0).any(axis=1),
    "axis of a spread": lambda a: (a.std(axis=0) + a.var(axis=0)).round(),
    "axis of cat": lambda a: library(a).cat([library(a).stack([a, a], axis=2)[..., 0], a], axis=1),
    "bool": lambda a: a.round().bool(),
    "int": lambda a: (a * 3).int(),
    "nelement": lambda a: library(a).tensor(a.nelement()),
    "integer remainder": lambda a: a.int() % 2 + 7 // a.int().abs().clamp(min=1),
    "floor division": lambda a: a // 0.3,
    "maximum of integers": lambda a: library(a).maximum(a.int(), -a.int()),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_results_outside_the_graph_are_torchs(name):
    x = np.round(3 * normal(3, 4), 1)
    ours, theirs = OUTSIDE[name](Tensor(x)), OUTSIDE[name](torch.tensor(x))
    assert ours.dtype == theirs.numpy().dtype
    np.testing.assert_array_equal(ours.data, theirs.numpy())


def test_equal_elements_keep_their_order():
    x = Tensor([2.0, 1.0, 2.0, 1.0])
    assert x.argsort().tolist() == [1, 3, 0, 2]
    assert x.argsort(descending=True).tolist() == [0, 2, 1, 3]
    assert x.topk(2).indices.tolist() == [0, 2]


def test_tensors_are_compared_as_a_whole():
    a = tensor([1.0, np.nan])
    assert instnorm.is_tensor(a)
    assert not instnorm.is_tensor(a.data)
    assert instnorm.equal(a[:1], tensor([1.0]))
    assert not instnorm.equal(a[:1], tensor([1.0, 2.0]))
    assert instnorm.allclose(a, a + 1e-9, equal_nan=True)
    assert not instnorm.allclose(a, a)


IN_PLACE = {
    "add_": lambda t, a: a.add_(2).add_(a * 3, alpha=0.5),
    "sub_": lambda t, a: a.sub_(t.ones(3)),
    "mul_": lambda t, a: a.mul_(0.9).div_(2),
    "pow_": lambda t, a: a.pow_(2),
    "power": lambda t, a: a.__ipow__(3),
    "neg_": lambda t, a: a.neg_().abs_(),
    "exp_": lambda t, a: a.exp_(),
    "sqrt_": lambda t, a: a.abs_().sqrt_(),
    "tanh_": lambda t, a: a.tanh_(),
    "sigmoid_": lambda t, a: a.sigmoid_(),
    "clamp_": lambda t, a: a.clamp_(min=0.2),
    "round_": lambda t, a: a.round_(),
    "relu_": lambda t, a: a.relu_(),
    "masked_fill_": lambda t, a: a.masked_fill_(a > 0, -1.0),
    "fill_": lambda t, a: a.fill_(3),
}


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_in_words(name, graph):
    x = normal(2, 3).astype(np.float32)
    results = []
    for lib in (instnorm, torch):
        leaf = lib.tensor(x, requires_grad=graph and name != "fill_")
        a = leaf * 1
        view = a.detach()
        result = IN_PLACE[name](lib, a)
        assert result is a
        # The memory is the same, and so is the history.
        assert np.asarray(view).tolist() == a.detach().numpy().tolist()
        results.append([a.detach().numpy()])
        if leaf.requires_grad:
            (a * lib.tensor(x)).sum().backward()
            results[-1].append(leaf.grad.numpy())
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_random_numbers_in_place():
    instnorm.manual_seed(0)
    x = instnorm.empty(1000)
    assert x.normal_(3, 0.5) is x
    assert abs(x.mean().item() - 3) < 0.1
    assert abs(x.std().item() - 0.5) < 0.1
    x.uniform_(-1, 1)
    assert -1 <= x.min().item() < -0.9
    assert 0.9 < x.max().item() < 1


# --- half precision -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)
def test_sums_of_half_precision_are_taken_in_float32(dtype):
    x = Tensor(np.ones((3000, 2), dtype), requires_grad=True)
    expected = torch.ones(3000, 2, dtype=getattr(torch, dtype.name))
    for reduce in (lambda t: t.sum(), lambda t: t.sum(0), lambda t: t.mean(), lambda t: t.mean(0)):
        y = reduce(x)
        assert y.dtype == dtype
        assert y.tolist() == reduce(expected).tolist()
    wide = Tensor(np.ones((2, 3000), dtype)) * Tensor(np.ones((2, 1), dtype), requires_grad=True)
    wide.sum().backward()
    scale = Tensor(np.ones((2, 1), dtype), requires_grad=True)
    (Tensor(np.ones((2, 3000), dtype)) * scale).sum().backward()
    assert scale.grad.tolist() == expected.sum(0).reshape(2, 1).tolist()


def test_the_mean_of_many_float16_is_finite():
    x = Tensor(np.full(70_000, 3, np.float16), requires_grad=True)
    assert x.mean().item() == 3
    assert Tensor(np.full(70_000, 3, np.float16)).sum().item() == INF
    x.mean().backward()
    assert x.grad.dtype == np.float16
    np.testing.assert_allclose(x.grad.data.astype(float), 1 / 70_000, rtol=1e-2)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_half_precision_stays_half_precision(name, dtype):
    func, arrays = OPERATIONS[name]
    leaves = our_leaves([np.asarray(a).astype(dtype) for a in arrays])
    y = func(*leaves)
    assert y.dtype == dtype
    y.backward(np.ones(y.shape, dtype))
    expected = func(*our_leaves([a.data.astype(float) for a in leaves]))
    scale = np.abs(expected.data).max(initial=1)
    error = np.abs(y.data.astype(float) - expected.data).max(initial=0)
    assert error <= 8 * float(ml_dtypes.finfo(dtype).eps) * scale
    assert all(a.grad.dtype == dtype for a in leaves)


# --- dtypes -------------------------------------------------------------------

ALL_DTYPES = [np.bool_, np.uint8, np.int64, np.float16, np.float32, np.float64]


SHAPES = {"arrays": ((2,), (2, 1)), "with a scalar": ((2,), ()), "scalars": ((), ())}


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("a", ALL_DTYPES)
@pytest.mark.parametrize("b", ALL_DTYPES)
def test_two_tensors_promote_as_in_torch(a, b, shapes):
    x, y = (np.ones(shape, dtype) for shape, dtype in zip(SHAPES[shapes], (a, b), strict=True))
    for func in (lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x / y, lambda x, y: x**y):
        try:
            expected = func(torch.tensor(x), torch.tensor(y)).numpy()
        except RuntimeError:  # no power of bool
            continue
        for operands in ((Tensor(x), Tensor(y)), (Tensor(x), y), (x, Tensor(y))):
            # A NumPy scalar that comes first would compute by itself.
            if all(isinstance(o, Tensor) or o.ndim for o in operands):
                result = func(*operands)
                assert result.dtype == expected.dtype
                assert (result.data == expected).all()


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("number", [2, 2.5, True])
def test_a_number_promotes_as_in_torch(dtype, number):
    x = np.ones(2, dtype)
    for func in (lambda x: x + number, lambda x: number * x, lambda x: x / number):
        assert func(Tensor(x)).dtype == func(torch.tensor(x)).numpy().dtype


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "sigmoid", "sum", "abs"])
@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_functions_of_integers_promote_as_in_torch(name, dtype):
    x = np.ones(2, dtype)
    if name == "abs" and dtype is np.bool_:
        pytest.skip("torch has no abs of bool")
    assert getattr(Tensor(x), name)().dtype == getattr(torch.tensor(x), name)().numpy().dtype


def test_matrix_products_of_two_dtypes_are_refused_as_in_torch():
    for a, b in ((np.float32, np.float64), (np.float16, np.float32), (np.int64, np.float32)):
        x, y = np.ones((2, 2), a), np.ones((2, 2), b)
        with pytest.raises(RuntimeError):
            torch.tensor(x) @ torch.tensor(y)
        with pytest.raises(RuntimeError, match=f"got {x.dtype} and {y.dtype}"):
            Tensor(x) @ Tensor(y)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32, np.float64], ids=str)
@pytest.mark.parametrize("number", [2, 2.5, True, np.float64(2.5)])
def test_a_number_takes_the_dtype_of_the_tensor(dtype, number):
    x = Tensor(np.ones(2, dtype))
    for y in (x + number, number + x, x - number, number - x, x * number, number * x, x / number):
        assert y.dtype == dtype
    for y in (number / x, x**number, number**x, x.where(np.array([True, False]), number)):
        assert y.dtype == dtype


def test_to():
    x = Tensor(np.array([1.5, -2.5]), requires_grad=True)
    assert x.to(np.float64) is x
    assert x.float().dtype == np.float32
    assert x.float().double().dtype == np.float64
    whole = x.to(np.int64)
    assert whole.tolist() == [1, -2]
    assert not whole.requires_grad
    (x.float() * 3).to("float16").sum().backward()
    assert x.grad.dtype == np.float64
    assert x.grad.tolist() == [3, 3]


# --- what is no operation ------------------------------------------------------


def test_sizes_devices_and_layout():
    x = Tensor(normal(2, 3))
    assert (x.size(), x.size(0), x.size(-1), x.dim()) == ((2, 3), 2, 3, 2)
    assert x.device == "cpu"
    assert x.device.type == torch.ones(1).device.type
    assert x.cpu() is x
    assert x.contiguous() is x
    assert x.is_contiguous()
    assert not x.T.is_contiguous()
    assert x.T.contiguous().data.flags.c_contiguous
    assert x.to("cpu") is x.to(instnorm.device("cpu")) is x.to(torch.device("cpu")) is x
    assert x.to("cpu", instnorm.float32).dtype == np.float32
    assert x.to(Tensor(np.ones(1, "f2"))).dtype == x.half().dtype == np.float16
    assert x.to(dtype=np.int64).tolist() == x.long().tolist()
    with pytest.raises(ValueError, match="device must be None or 'cpu', got 'cuda'"):
        x.to("cuda")


def test_format_and_index():
    x, t = tensor(2.34567, requires_grad=True), torch.tensor(2.34567, requires_grad=True)
    assert f"{x:.3f} {x} {x * 1:8.2e}" == f"{t:.3f} {t} {t * 1:8.2e}"
    with pytest.raises(TypeError):
        f"{tensor([1.0, 2.0]):.3f}"
    assert "abc"[tensor(1)] == "b"
    assert list(range(tensor([2]))) == [0, 1]
    with pytest.raises(TypeError, match="integers is an index, and this one is float32"):
        "abc"[x]


def test_masks():
    x = tensor([1.0, -2.0, 3.0])
    assert ((x > 0) & (x < 2)).tolist() == [True, False, False]
    assert ((x < 0) | ~(x < 2)).tolist() == [False, True, True]


def test_parts_are_those_of_torch():
    x = normal(2, 7)
    a, t = Tensor(x), torch.tensor(x)
    for cut in (lambda z: z.split(3, 1), lambda z: z.chunk(3, 1), lambda z: z.chunk(5, -1)):
        assert [part.tolist() for part in cut(a)] == [part.tolist() for part in cut(t)]
    assert len(a[:, :0].chunk(3, 1)) == len(t[:, :0].split(3, 1)) == 1


def test_functions_of_numpy_see_the_values():
    x = tensor([[1.0, 2.0], [3.0, 5.0]])
    assert np.mean(x) == 2.75
    assert np.concatenate([x, x], axis=1).shape == (2, 4)
    assert np.allclose(x, x.data)
    with pytest.raises(RuntimeError, match=r"numpy.mean of a Tensor that requires gradients"):
        np.mean(x.requires_grad_())


ERRORS = {
    "shape": (lambda: Tensor(3, 4), TypeError, r"got \(3, 4\).*instnorm.zeros\(3, 4\)"),
    "three sizes": (lambda: Tensor(3, 4, 5), TypeError, r"instnorm.zeros\(3, 4, 5\)"),
    "masked": (
        lambda: Tensor(np.ma.masked_array([1.0, 2.0], [True, False])),
        TypeError,
        "masked array, whose mask would be ignored",
    ),
    "masked operand": (
        lambda: tensor([1.0, 2.0]) + np.ma.masked_array([1.0, 2.0], [True, False]),
        TypeError,
        "masked array",
    ),
    "masked tensor()": (lambda: tensor(np.ma.masked_array([1.0], [True])), TypeError, "masked"),
    "clamp": (lambda: tensor([1.0]).clamp(), RuntimeError, "at least one of min and max"),
    "norm": (lambda: tensor([1.0]).norm(0), ValueError, "p must be greater than 0"),
    "norm name": (lambda: tensor([1.0]).norm("nuc"), ValueError, "got 'nuc'"),
    "split": (lambda: tensor([1.0, 2]).split(0), ValueError, "split_size must be at least 1"),
    "split sizes": (lambda: tensor([1.0, 2]).split([1, 2]), ValueError, "add up to 2"),
    "chunk": (lambda: tensor([1.0, 2]).chunk(0), ValueError, "chunks must be at least 1"),
    "expand": (lambda: tensor([[1.0]]).expand(2), ValueError, "at least 2"),
    "repeat": (lambda: tensor([[1.0]]).repeat(2), ValueError, "at least 2"),
    "cuda": (lambda: tensor([1.0]).cuda(), AttributeError, "computes on the CPU"),
    "spelling": (lambda: tensor([1.0]).unsqeeze(0), AttributeError, "nearest: unsqueeze"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_is_wrong(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


# --- making one ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.5, 2], np.float32),
        ([[1.0], [2.0]], np.float32),
        ((), np.float32),
        (1, np.int64),
        ([1, 2], np.int64),
        ([True, False], np.bool_),
        ([1.5, np.float64(2)], np.float64),
        (np.float64(2), np.float64),
        ([np.float32(1), np.float32(2)], np.float32),
        (np.ones(2), np.float64),
        (np.ones(2, np.float16), np.float16),
        (np.ones(2, BFLOAT16), BFLOAT16),
        ([np.ones(2), np.ones(2)], np.float64),
        ([tensor([1.0]), tensor([2.0])], np.float32),
    ],
)
@pytest.mark.parametrize("make", [Tensor, tensor])
def test_dtype_of_data(make, data, dtype):
    t = make(data)
    assert t.dtype == dtype
    np.testing.assert_array_equal(t.data.astype(float), np.asarray(data, float))


def test_tensor_with_a_dtype():
    assert tensor([0.1, 0.2], np.float64).tolist() == [0.1, 0.2]
    assert tensor([1, 2], np.float64).dtype == np.float64
    assert tensor([1.7], np.int64).tolist() == [1]
    assert tensor(np.ones(2), BFLOAT16).dtype == BFLOAT16
    assert tensor(tensor([1.0]), np.float16).dtype == np.float16


def test_what_shares_memory():
    array = np.zeros(3)
    shared, copied = Tensor(array), tensor(array)
    array[0] = 5
    assert shared.tolist() == [5, 0, 0]
    assert copied.tolist() == [0, 0, 0]
    assert shared.data is array
    assert shared.numpy() is array
    again = Tensor(shared)
    again[1] = 6.0
    assert shared.tolist() == [5, 6, 0]
    assert tensor(shared).data is not array
    assert shared.clone().data is not array
    assert np.asarray(shared) is array
    assert np.array(shared) is not array
    assert np.asarray(shared, np.float32).dtype == np.float32


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("abc", TypeError),
        ([1j], TypeError),
        (None, TypeError),
        ([None], TypeError),
        (np.zeros(2, "M8[s]"), TypeError),
        (np.zeros(2, [("a", "f")]), TypeError),
        ([[1.0], [1.0, 2.0]], ValueError),
    ],
)
def test_what_is_no_tensor(data, error):
    for make in (Tensor, tensor):
        with pytest.raises(error):
            make(data)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
def test_integers_have_no_gradient(dtype):
    for make in (Tensor, tensor):
        with pytest.raises(RuntimeError, match="only Tensors of floating point dtype"):
            make(np.ones(2, dtype), requires_grad=True)


def test_a_tensor_of_a_result_is_a_leaf():
    x = Tensor([1.0], requires_grad=True)
    for leaf in (Tensor(x * 2), (x * 2).detach(), tensor(x * 2)):
        assert leaf.is_leaf
        assert not leaf.requires_grad


# --- looking at one -----------------------------------------------------------


def test_attributes():
    t = Tensor(np.zeros((2, 3, 4), np.float32))
    assert (t.shape, t.ndim, t.numel(), len(t), t.dtype) == ((2, 3, 4), 3, 24, 2, np.float32)
    assert (t.is_leaf, t.requires_grad, t.grad, t.grad_fn) == (True, False, None, None)
    assert t.requires_grad_() is t
    assert t.requires_grad
    assert hash(t) == hash(t)
    assert t.zeros_like().shape == t.shape


def test_single_numbers():
    assert tensor([[2.5]]).item() == 2.5
    assert float(tensor(2.5)) == 2.5
    assert int(tensor([7])) == 7
    assert bool(tensor(0.0)) is False
    assert isinstance(tensor(2.5).item(), float)
    for convert in (bool, float, int):
        with pytest.raises(RuntimeError, match=r"one element, got shape \(2,\)"):
            convert(tensor([1, 2]))
    with pytest.raises(TypeError, match="without axes"):
        len(tensor(1.0))
    with pytest.raises(TypeError, match="without axes"):
        list(tensor(1.0))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: tensor(3), "tensor(3)"),
        (lambda: tensor([True]), "tensor([ True])"),
        (lambda: tensor([1.0], np.float64), "tensor([1.], dtype=float64)"),
        (lambda: tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: tensor([1.0], requires_grad=True).log(), "tensor([0.], grad_fn=<Log>)"),
        (lambda: tensor([[1, 2], [3, 4]]), "tensor([[1, 2],\n        [3, 4]])"),
        (lambda: tensor([]), "tensor([])"),
    ],
)
def test_repr(make, text):
    assert repr(make()) == text


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies(way):
    t = Tensor(np.ones(2), requires_grad=True)
    (t * 3).sum().backward()
    other = way(t)
    assert (other.tolist(), other.requires_grad, other.grad.tolist()) == ([1, 1], True, [3, 3])
    if way is not copy.copy:
        other.data[0] = 9
        other.grad.data[0] = 9
        assert (t.tolist(), t.grad.tolist()) == ([1, 1], [3, 3])
    with pytest.raises(RuntimeError, match="only leaves can be copied"):
        way(t * 2)


# --- comparisons --------------------------------------------------------------


def test_comparisons():
    x = np.array([1.0, 2.0, NAN])
    a, b = Tensor(x, requires_grad=True), np.array([[2.0], [1.0]])
    comparisons = ["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"]
    for name in comparisons:
        for other in (2, 2.0, b, x):
            result = getattr(a, name)(Tensor(other) if other is x else other)
            assert result.dtype == np.bool_
            assert not result.requires_grad
            np.testing.assert_array_equal(result.data, getattr(x, name)(other))
    assert (b < a).tolist() == (b < x).tolist()
    assert (np.float32(2) > a).tolist() == [True, False, False]
    assert (a == [1.0, 2.0, 3.0]).tolist() == [True, True, False]
    assert (a == "text") is False
    assert (a != None) is True  # noqa: E711
    with pytest.raises(TypeError):
        _ = a < "text"


# --- in place -----------------------------------------------------------------


def test_in_place_arithmetic():
    t = tensor([1.0, 2.0])
    same, memory = t, t.data
    t += 1
    t *= tensor([2.0, 3.0])
    t -= np.array([1.0, 1.0])
    t /= 2
    assert t is same
    assert t.data is memory
    assert t.dtype == np.float32
    assert t.tolist() == [1.5, 4]
    t[0] = 9
    t[tensor([1])] = tensor([8.0])
    assert t.tolist() == [9, 8]
    assert t.copy_([1.0, 2.0]) is t
    assert t.tolist() == [1, 2]
    assert t.zero_() is t
    assert t.tolist() == [0, 0]
    t += t.broadcast_to(2) + 1
    assert t.tolist() == [1, 1]


def test_in_place_on_a_view():
    t = tensor([[1.0, 2.0], [3.0, 4.0]])
    t[0] += 10
    t.T[1].zero_()
    t.reshape(4)[2:3] *= 2
    t[0, 0].copy_(7)
    assert t.tolist() == [[7, 0], [6, 0]]


def test_in_place_on_a_parameter():
    w = Tensor(np.ones(2), requires_grad=True)
    with no_grad():
        w -= 0.5
        w[0] = 3
    assert w.is_leaf
    assert w.requires_grad
    assert w.tolist() == [3, 0.5]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.__iadd__(np.ones((2, 2))), ValueError, "broadcast"),
        (lambda t: t.__setitem__(5, 1), IndexError, "out of bounds"),
        (lambda t: tensor([1, 2]).__iadd__(1.5), TypeError, "float(32|64) values into a int64"),
        (lambda t: tensor([1, 2]).__itruediv__(2), TypeError, "float(32|64) values into a int64"),
        (lambda t: t.broadcast_to(3, 2).zero_(), ValueError, "read-only"),
    ],
)
def test_what_in_place_refuses(change, error, message):
    t = tensor([1.0, 2.0])
    with pytest.raises(error, match=message):
        change(t)
    assert t.tolist() == [1, 2]


# --- bad arguments ------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.sum(2), IndexError, "dim 2 is out of range, expected from -2 to 1"),
        (lambda t: t.sum(-3), IndexError, "dim -3 is out of range"),
        (lambda t: t.mean((0, 0)), ValueError, r"dim \(0, 0\) names an axis twice"),
        (lambda t: t.sum((0, -2)), ValueError, "names an axis twice"),
        (lambda t: t.max(2), IndexError, "dim 2 is out of range"),
        (lambda t: t.argmax(2), IndexError, "out of bounds"),
        (lambda t: t[:0].max(), ValueError, r"max over no elements: .* shape \(0, 3\)"),
        (lambda t: t[:0].max(0), ValueError, r"max over no elements"),
        (lambda t: t.transpose(0, 2), IndexError, "dim 2 is out of range"),
        (lambda t: tensor(1.0).transpose(0, 1), IndexError, "dim 1 is out of range"),
        (lambda t: t.permute(0), ValueError, "dims has 1 axes, expected all 2"),
        (lambda t: t.permute(0, 0), ValueError, "names an axis twice"),
        (lambda t: t.permute(0, 2), IndexError, "dim 2 is out of range"),
        (lambda t: t.reshape(4), ValueError, "cannot reshape"),
        (lambda t: t.reshape(-1, -1), ValueError, "one unknown dimension"),
        (lambda t: t.flatten(1, 0), ValueError, "start_dim 1 comes after end_dim 0"),
        (lambda t: t.flatten(3), IndexError, "dim 3 is out of range"),
        (lambda t: t.broadcast_to(2, 4), ValueError, "could not be broadcast"),
        (lambda t: t + tensor([1.0, 2.0]), ValueError, "could not be broadcast"),
        (lambda t: t @ t, ValueError, "mismatch"),
        (lambda t: t @ 2.0, ValueError, r"at least 1 axis on both sides, got \(2, 3\) @ \(\)"),
        (lambda t: t[2], IndexError, "out of bounds"),
        (lambda t: t["a"], IndexError, "only integers"),
        (lambda t: t + "a", TypeError, "a Tensor holds"),
        (lambda t: t * 1j, TypeError, "a Tensor holds"),
        (lambda t: np.exp(t), RuntimeError, r"numpy.exp of .* use a method .* numpy.exp\(x.detach"),
        (lambda t: t.sum(dim=0, axis=1), TypeError, "unexpected keyword argument 'axis'"),
        (lambda t: t.topk(4), ValueError, "k must be from 0 to 3, got 4"),
        (lambda t: t.gather(0, tensor([0])), ValueError, "index has 1 axes, expected 2"),
        (lambda t: t.unsqueeze(0).t(), RuntimeError, r"at most 2 axes, got shape \(1, 2, 3\)"),
        (lambda t: t.unsqueeze(0).diag(), RuntimeError, "a vector or a matrix, got shape"),
    ],
)
def test_what_is_refused(call, error, message):
    t = Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(error, match=message):
        call(t)


def test_every_public_method_is_tested_here():
    """A method that is added to Tensor has to show up in this file."""
    methods = [n for n in vars(Tensor) if not n.startswith("_") and callable(getattr(Tensor, n))]
    with open(__file__) as file:
        text = file.read()
    # Hooks are a matter of the graph, and of test_autograd.py.
    internal = {"view_of_memory", "new", "mark_changed", "register_hook", "retain_grad"}
    missing = [n for n in methods if n not in internal and not re.search(rf"\.{n}\b", text)]
    assert not missing
    assert instnorm.Tensor is Tensor


def test_arrays_take_a_tensor_in_place():
    """``w.data -= lr * w.grad``, as in many a first training loop."""
    w = tensor([1.0, 2.0], requires_grad=True)
    memory = w.data
    (w * w).sum().backward()
    w.data -= 0.25 * w.grad
    assert w.data is memory
    assert w.tolist() == [0.5, 1.0]
    with pytest.raises(RuntimeError, match="would lose them"):
        w.data -= 0.25 * w


def test_ufuncs_of_values_are_arrays():
    x = tensor([1.0, 4.0])
    assert type(np.sqrt(x)) is np.ndarray
    assert np.sqrt(x).tolist() == [1, 2]
    assert np.add.reduce(x) == 5
    assert np.maximum(x, np.array([2.0, 2.0])).tolist() == [2, 4]
    out = np.zeros(2, np.float32)
    assert np.add(x, x, out=out) is out
    assert isinstance(np.float64(2) * x, Tensor)
    assert (np.float64(2) * x).dtype == np.float32


def test_a_tensor_assigned_to_data_is_told_of():
    w = tensor([1.0, 2.0], requires_grad=True)
    w.data = tensor([3.0, 4.0])
    with pytest.raises(AttributeError, match=r"assigned to x.data.* write x.data = y.data"):
        w * 2


def test_functions_name_their_input_and_take_arrays():
    array = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(instnorm.sum(input=array, dim=1), [3.0, 12.0])
    np.testing.assert_array_equal(
        instnorm.maximum(array, Tensor(4 - array)), [[4, 3, 2], [3, 4, 5]]
    )
    with pytest.raises(TypeError, match="sum: input must be a Tensor or an ndarray, got list"):
        instnorm.sum([1.0])
