"""The graph: backward, grad, no_grad, Function, in-place changes, depth and memory."""

import gc
import operator
import threading
import weakref

import numpy as np
import pytest
from helpers.beside_torch import torch
from helpers.tensors import normal

import instnorm
from instnorm import Tensor, enable_grad, grad, is_grad_enabled, no_grad, tensor
from instnorm.autograd import Function
from instnorm.testing import gradcheck, gradgradcheck

pytestmark = pytest.mark.torch


def leaf(values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def in_both(program):
    """Run a program that takes a maker of leaves under instnorm and under torch."""
    ours = program(leaf, instnorm)
    theirs = program(
        lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True), torch.autograd
    )
    return ours, theirs


def values(result):
    if result is None or isinstance(result, float | int | bool):
        return result
    if isinstance(result, tuple | list):
        return [values(r) for r in result]
    return result.tolist()


# --- as torch does ------------------------------------------------------------


def accumulate(make, _):
    x, w = make([1.0, 2.0]), make([3.0, 4.0])
    (x * w).sum().backward()
    (x * x).sum().backward()
    return x.grad, w.grad


def diamond(make, _):
    x = make([1.0, 2.0])
    a = x * x
    b, c = a.exp(), a * 3
    ((b * c) + a).sum().backward()
    return x.grad


def diamond_met_from_its_end(make, _):
    """The node that both sides lead to is found first by the direct way."""
    x = make([1.0, 2.0])
    a = x * x
    (a + a.exp() * a.tanh()).sum().backward()
    return x.grad


def the_same_operand_twice(make, _):
    x = make([2.0])
    (x * x + x / x + x**x).sum().backward()
    return x.grad


def a_chain_of_diamonds(make, _):
    x = make([0.9])
    y = x
    for _ in range(40):
        y = y + y * y * 0.01
    y.sum().backward()
    return x.grad


def retain(make, _):
    x = make([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    return x.grad


def non_scalar(make, _):
    x = make([1.0, 2.0])
    gradient = make([10.0, 20.0]).detach()
    (x * x).backward(gradient)
    return x.grad


def one_element(make, _):
    x = make([[3.0]])
    (x * x).backward()
    return x.grad


def a_leaf_itself(make, _):
    x = make(3.0)
    x.backward()
    return x.grad


def detached(make, _):
    x = make([1.0, 2.0])
    y = (x * x.detach()).sum()
    y.backward()
    return x.grad, y.detach().requires_grad, x.detach().is_leaf


def leaves_and_results(make, _):
    x = make([1.0])
    y = x * 2
    z = y.detach()
    return [(t.is_leaf, t.requires_grad, t.grad_fn is None) for t in (x, y, z)]


def of_results_between(make, lib):
    x = make([1.0, 2.0])
    y = x * x
    z = y.exp()
    out = (z * y).sum()
    found = lib.grad(out, [x, y, z])
    return found, x.grad


def of_the_output_itself(make, lib):
    x = make([1.0, 2.0])
    y = (x * x).sum()
    return lib.grad(y, y)


def of_leaves_of_one_another(make, lib):
    x, w = make([1.0, 2.0]), make([3.0, 4.0])
    return lib.grad([(x * w).sum(), (x + w).sum()], [w, x, w])


def with_grad_outputs(make, lib):
    x = make([1.0, 2.0])
    v = make([5.0, 7.0]).detach()
    return lib.grad([x * x, x.sum()], [x], [v, None])


def twice_the_same_output(make, lib):
    x = make(3.0)
    y = x * x
    return lib.grad([y, y], [x])


def unused(make, lib):
    x, w = make([1.0]), make([1.0])
    return lib.grad(x.sum(), [x, w], allow_unused=True)


def third_derivative(make, lib):
    x = make([0.5, 1.5])
    y = (x**5 * x.exp()).sum()
    results = []
    for _ in range(3):
        (y,) = lib.grad(y.sum(), x, create_graph=True)
        results.append(y)
    return results


def gradient_of_a_gradient_norm(make, lib):
    x, w = make([1.0, 2.0]), make([0.5, -0.5])
    (g,) = lib.grad((x * w).tanh().sum(), x, create_graph=True)
    (g * g).sum().backward()
    return x.grad, w.grad


def hessian_vector_product_with_a_differentiable_cotangent(make, lib):
    x, v = make([1.0, 2.0]), make([3.0, 5.0])
    (g,) = lib.grad(x**3, x, v, create_graph=True)
    return lib.grad(g.sum(), [x, v])


def requires_grad_of_the_gradient(make, lib):
    x = make([2.0])
    (plain,) = lib.grad((x * x).sum(), x)
    (linked,) = lib.grad((x * x).sum(), x, create_graph=True)
    return plain.requires_grad, linked.requires_grad


def graph_kept_by_create_graph(make, lib):
    x = make([2.0])
    y = (x * x).sum()
    lib.grad(y, x, create_graph=True)
    y.backward()
    return x.grad


def a_branch_outside_the_graph(make, _):
    x, w = make([2.0]), make([3.0])
    w.requires_grad_(False)
    (x * w).sum().backward()
    return x.grad, w.grad


def nothing_saved_nothing_freed(make, _):
    x = make([2.0])
    y = (x + 1).sum()
    y.backward()
    y.backward()
    return x.grad


PROGRAMS = [
    accumulate,
    diamond,
    diamond_met_from_its_end,
    the_same_operand_twice,
    a_chain_of_diamonds,
    retain,
    non_scalar,
    one_element,
    a_leaf_itself,
    detached,
    leaves_and_results,
    of_results_between,
    of_the_output_itself,
    of_leaves_of_one_another,
    with_grad_outputs,
    twice_the_same_output,
    unused,
    third_derivative,
    gradient_of_a_gradient_norm,
    hessian_vector_product_with_a_differentiable_cotangent,
    requires_grad_of_the_gradient,
    graph_kept_by_create_graph,
    a_branch_outside_the_graph,
    nothing_saved_nothing_freed,
]


def flat(nested):
    if isinstance(nested, list | tuple):
        return [x for entry in nested for x in flat(entry)]
    return [nested]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_as_torch(program):
    ours, theirs = (flat(values(result)) for result in in_both(program))
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert a == b if b is None or isinstance(b, bool) else a == pytest.approx(b, rel=1e-13)


# --- errors that torch gives too ----------------------------------------------


def backward_twice(make, _):
    y = (make([1.0]) * make([2.0])).sum()
    y.backward()
    y.backward()


def backward_through_a_freed_part(make, _):
    x = make([1.0])
    shared = x * x
    shared.sum().backward()
    (shared * 2).sum().backward()


def backward_of_a_non_scalar(make, _):
    (make([1.0, 2.0]) * 2).backward()


def backward_of_a_constant(make, _):
    make([1.0]).detach().sum().backward()


def backward_under_no_grad(make, lib):
    x = make([1.0])
    with no_grad() if lib is instnorm else torch.no_grad():
        y = x.sum()
    y.backward()


def gradient_of_another_shape(make, _):
    (make([1.0, 2.0]) * 2).backward(make([1.0, 2.0, 3.0]).detach())


def gradient_that_would_broadcast(make, _):
    (make([1.0, 2.0]) * 2).backward(make([1.0]).detach())


def unused_input(make, lib):
    lib.grad(make([1.0]).sum(), make([1.0]))


def constant_input(make, lib):
    x = make([1.0])
    lib.grad((x * x).sum(), [x.detach()], allow_unused=True)


def saved_then_changed(make, lib):
    x = make([1.0, 2.0])
    y = x * x
    z = y.exp() * y
    with no_grad() if lib is instnorm else torch.no_grad():
        y += 1
    z.sum().backward()


def output_changed(make, lib):
    x = make([1.0, 2.0])
    y = x.exp()
    with no_grad() if lib is instnorm else torch.no_grad():
        y *= 2
    y.sum().backward()


def changed_through_a_view(make, _):
    x = make([1.0, 2.0])
    y = (x * x).sum()
    x.detach()[0:1].zero_()
    y.backward()


def changed_through_one_element(make, _):
    x = make([1.0, 2.0])
    y = (x * x).sum()
    x.detach()[1].zero_()
    y.backward()


def changed_through_a_reshaped_view(make, lib):
    x, w = make([1.0, 2.0]), make([1.0, 1.0])
    with no_grad() if lib is instnorm else torch.no_grad():
        view = w.reshape(2, 1)
    y = (x * w).sum()
    with no_grad() if lib is instnorm else torch.no_grad():
        view[0] = 5.0
    y.backward()


def a_leaf_changed_in_place(make, _):
    x = make([1.0])
    x += 1


def a_leaf_changed_by_assignment(make, _):
    x = make([1.0])
    x[0] = 2.0


def a_leaf_zeroed(make, _):
    make([1.0]).zero_()


def required_of_integers(make, lib):
    x = make([1.0]).detach()
    (x.to(np.int64) if lib is instnorm else x.long()).requires_grad_()


def switched_off_for_a_result(make, _):
    (make([1.0]) * 2).requires_grad_(False)


def numpy_of_a_leaf(make, _):
    make([1.0]).numpy()


def item_of_many(make, _):
    make([1.0, 2.0]).item()


def grad_of_another_shape(make, _):
    make([1.0, 2.0]).grad = make([1.0]).detach()


ERRORS = [
    (backward_twice, "freed. Pass retain_graph=True"),
    (backward_through_a_freed_part, "freed. Pass retain_graph=True"),
    (backward_of_a_non_scalar, r"only for a scalar, and the Tensor has shape \(2,\)"),
    (backward_of_a_constant, "does not require gradients and has no grad_fn"),
    (backward_under_no_grad, "does not require gradients and has no grad_fn"),
    (gradient_of_another_shape, r"shape \(3,\), expected that of the Tensor, \(2,\)"),
    (gradient_that_would_broadcast, r"shape \(1,\), expected that of the Tensor, \(2,\)"),
    (unused_input, r"inputs\[0\] appears not to have been used"),
    (constant_input, r"inputs\[0\] does not require gradients"),
    (saved_then_changed, r"shape \(2,\) that \w+ needs .* modified by an in-place operation"),
    (output_changed, r"shape \(2,\) that Exp needs .* modified by an in-place operation"),
    (changed_through_a_view, "that Mul needs .* modified by an in-place operation"),
    (changed_through_one_element, "that Mul needs .* modified by an in-place operation"),
    (changed_through_a_reshaped_view, "that Mul needs .* modified by an in-place operation"),
    (a_leaf_changed_in_place, "in-place operations are not recorded"),
    (a_leaf_changed_by_assignment, "in-place operations are not recorded"),
    (a_leaf_zeroed, "in-place operations are not recorded"),
    (required_of_integers, "only Tensors of floating point dtype can require gradients"),
    (switched_off_for_a_result, "requires_grad can be switched off only for leaves"),
    (numpy_of_a_leaf, r"use x.detach\(\).numpy\(\)"),
    (item_of_many, r"needs a Tensor of one element, got shape \(2,\)"),
    (grad_of_another_shape, r"grad has shape \(1,\), expected that of the Tensor, \(2,\)"),
]


@pytest.mark.parametrize(("program", "message"), ERRORS, ids=lambda p: getattr(p, "__name__", ""))
def test_errors_as_torch(program, message):
    with pytest.raises(RuntimeError, match=message):
        program(leaf, instnorm)
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        program(lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True), torch.autograd)


@pytest.mark.parametrize(
    "operation", [operator.iadd, operator.isub, operator.imul, operator.itruediv]
)
def test_in_place_in_the_graph_as_torch(operation):
    found = []
    for make, library in (
        (leaf, instnorm),
        (lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True), torch),
    ):
        x, w = make([1.0, 2.0]), make([3.0, 5.0])
        h = x * 2
        h = operation(h, w + 1)
        h = operation(h, 3.0)
        buffer = library.tensor([0.0, 1.0], dtype=h.dtype)
        buffer = operation(buffer, h)
        (buffer * buffer).sum().backward()
        found.append([buffer.tolist(), x.grad.tolist(), w.grad.tolist()])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_in_place_breaks_no_gradient_in_silence():
    x = leaf([1.0, 2.0])
    e = x.exp()  # needs its result
    e += 1
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        e.sum().backward()
    h = x * 2
    with pytest.raises(RuntimeError, match="cannot hold the result"):
        h += tensor([[1.0, 2.0]])


def test_what_would_lose_a_gradient_is_refused():
    """Torch records some of these; here they would lose the gradient, so they are an error."""
    x, buffer = leaf([1.0, 2.0]), tensor([0.0, 0.0])
    y = x * 2
    for change in (
        lambda: buffer.copy_(x),
        lambda: y.reshape(2, 1).__imul__(3),
        lambda: y[:1].__setitem__(0, x[1]),
        lambda: x.__setitem__(0, 1.0),
    ):
        with pytest.raises(RuntimeError, match="in-place operations are not recorded"):
            change()
    with pytest.raises(TypeError, match="cannot write float64 values into a int64 Tensor"):
        tensor([1, 2])[0] = x[0]
    assert buffer.tolist() == [0, 0]
    assert x.tolist() == [1, 2]


ASSIGNMENTS = {
    "a number": lambda t, a, b: a.__setitem__((slice(None), 1), 0.5),
    "a Tensor": lambda t, a, b: a.__setitem__(0, b),
    "a broadcast Tensor": lambda t, a, b: a.__setitem__((slice(None), slice(1, 3)), b[0]),
    "a mask": lambda t, a, b: a.__setitem__(a > 0, -1.0),
    "integers": lambda t, a, b: a.__setitem__(([0, 1], [2, 0]), b[:2]),
    "itself": lambda t, a, b: a.__setitem__(0, a[1] + b),
    "all": lambda t, a, b: a.__setitem__(..., b),
}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_assignments_are_recorded_as_in_torch(name):
    x, y, weight = normal(2, 3), normal(3, seed=1), normal(2, 3, seed=2)
    results = []
    for lib in (instnorm, torch):
        a, b = (lib.tensor(v, requires_grad=True) for v in (x, y))
        h = a * 2
        ASSIGNMENTS[name](lib, h, b)
        (h * h * lib.tensor(weight)).sum().backward()
        used = b.grad if b.grad is not None else lib.zeros(3, dtype=lib.float64)
        results.append([v.detach().numpy() for v in (h, a.grad, used)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_assignments_have_second_derivatives():
    def filled(a, b):
        h = a * a
        h[0, 1:] = b * b
        buffer = tensor(np.zeros(3))
        buffer[1] = a[1, 0] ** 3
        return h * buffer

    leaves = [leaf(normal(2, 3)), leaf(normal(2, seed=1))]
    assert gradcheck(filled, leaves)
    assert gradgradcheck(filled, leaves)


def test_what_nobody_else_sees_may_change_in_place():
    """A batch norm ends in a view; ``out += identity`` after it ends a block of a ResNet."""
    x = leaf(normal(2, 3, 4, 4))
    out = instnorm.nn.BatchNorm2d(3, dtype=np.float64)(x)
    expected = instnorm.grad((out + x).square().sum(), [x], retain_graph=True)[0]
    out += x
    (gradient,) = instnorm.grad(out.square().sum(), [x])
    np.testing.assert_allclose(gradient.data, expected.data, rtol=1e-12)


def test_retain_grad():
    x = leaf([1.0, 2.0])
    y = x * 3
    y.retain_grad()
    x.retain_grad()
    (y * y).sum().backward(retain_graph=True)
    assert y.grad.tolist() == [6, 12]
    assert x.grad.tolist() == [18, 36]
    (y * y).sum().backward()
    assert y.grad.tolist() == [12, 24]
    gone = weakref.ref(y)
    del y
    assert gone() is None


def test_set_grad_enabled():
    x = leaf([1.0])

    @instnorm.set_grad_enabled(False)
    def double(x):
        return x * 2

    assert (x * 2).requires_grad
    assert not double(x).requires_grad
    assert not double(x).requires_grad
    with instnorm.set_grad_enabled(False):
        assert not (x * 2).requires_grad
        with instnorm.set_grad_enabled(True):
            assert (x * 2).requires_grad
    assert (x * 2).requires_grad
    instnorm.set_grad_enabled(False)
    try:
        assert not (x * 2).requires_grad
    finally:
        instnorm.set_grad_enabled(True)
    assert (x * 2).requires_grad
    with instnorm.inference_mode():
        assert not (x * 2).requires_grad


def test_changing_what_was_not_saved_is_harmless():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    out = (x + y).sum() + (x * 3).sum()
    with no_grad():
        x.zero_()
        y += 1
    out.backward()
    assert x.grad.tolist() == [4, 4]
    assert y.grad.tolist() == [1, 1]


def test_what_autograd_needs_is_not_in_the_callers_hands():
    """Index arrays and masks that are changed later do not change the gradient."""
    x = leaf([1.0, 2.0, 3.0])
    index, chosen, mask = np.array([0, 0]), tensor([2]), np.array([True, False, False])
    y = x[index].sum() + x[chosen].sum() * 10 + x.where(mask, 0.0).sum() * 100 + x[mask].sum()
    index[:], mask[:] = 1, True
    chosen.zero_()
    y.backward()
    assert x.grad.tolist() == [103, 0, 10]


def test_what_torch_lets_pass():
    x = leaf([1.0])
    message = "grad_outputs has 2 entries, expected one for each of the 1 outputs"
    with pytest.raises(RuntimeError, match=message):
        grad(x * x, x, [x.detach(), x.detach()])


def test_wrong_types():
    x = leaf([1.0])
    with pytest.raises(TypeError, match=r"outputs\[1\] must be a Tensor, got float"):
        grad([x, 1.0], x)
    with pytest.raises(TypeError, match=r"inputs\[0\] must be a Tensor, got ndarray"):
        grad(x, [np.ones(1)])
    with pytest.raises(TypeError, match="grad must be a Tensor or None, got ndarray"):
        x.grad = np.ones(1)
    with pytest.raises(RuntimeError, match="grad has dtype float32, expected that of the Tensor"):
        x.grad = tensor([1.0])


# --- .grad --------------------------------------------------------------------


def test_grad_is_a_new_array_of_each_leaf():
    a, b = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    for create_graph in (False, True):
        a.grad = b.grad = None
        (a + b).sum().backward(create_graph=create_graph)
        a.grad.data[0] = 9
        assert b.grad.tolist() == [1, 1]


def test_the_callers_gradient_is_not_shared():
    a, gradient = leaf([1.0, 2.0]), tensor([5.0, 6.0], np.float64)
    a.backward(gradient)
    gradient.zero_()
    assert a.grad.tolist() == [5, 6]


@pytest.mark.parametrize("kind", [instnorm.nn.Parameter, lambda a: Tensor(a, requires_grad=True)])
def test_a_gradient_of_any_kind_becomes_a_plain_grad(kind):
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            return x.data * 2

        @staticmethod
        def backward(ctx, g):
            return kind(g.data * 2)

    a = leaf([1.0, 2.0])
    Double.apply(a).backward(kind(np.array([5.0, 6.0])))
    assert type(a.grad) is Tensor
    assert not a.grad.requires_grad
    assert a.grad.tolist() == [10, 12]


def test_gradient_may_be_an_array():
    a = leaf([1.0, 2.0])
    (a * 2).backward(np.array([1, 10]))
    (a * 2).backward([1.0, 10.0])
    assert a.grad.tolist() == [4, 40]
    assert a.grad.dtype == np.float64


def test_grad_has_the_memory_layout_of_its_leaf():
    a = Tensor(np.ones((2, 3, 4, 5)).transpose(0, 3, 1, 2), requires_grad=True)
    (a * a).sum().backward()
    assert a.grad.data.strides == a.data.strides
    (a * a).sum().backward()
    assert a.grad.data.strides == a.data.strides


def test_create_graph_leaves_a_grad_that_can_be_differentiated():
    x = leaf([2.0])
    (x**3).sum().backward(create_graph=True)
    (second,) = grad(x.grad, x, retain_graph=True)
    assert second.tolist() == [12]
    y = (x**3).sum()
    with no_grad():
        y.backward(create_graph=True)
    assert grad(x.grad, x)[0].tolist() == [24]


def test_nothing_is_accumulated_where_backward_fails():
    a, b = leaf([1.0]), leaf([2.0])
    out = (Broken.apply(a) + b).sum()
    with pytest.raises(ZeroDivisionError):
        out.backward()
    assert a.grad is None
    assert b.grad is None
    assert is_grad_enabled()


@pytest.mark.parametrize("a_dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("b_dtype", [np.float16, np.float32, np.float64, np.int64, np.bool_])
def test_gradients_have_the_dtype_of_their_tensor(a_dtype, b_dtype):
    a = Tensor(np.array([1, 2, 3], a_dtype), requires_grad=True)
    b = Tensor(np.array([[1], [0]], b_dtype), requires_grad=np.dtype(b_dtype).kind == "f")
    out = a * b
    b_is_float = np.dtype(b_dtype).kind == "f"
    assert out.dtype == (np.result_type(a_dtype, b_dtype) if b_is_float else a_dtype)
    out.sum().backward()
    assert a.grad.dtype == a_dtype
    assert a.grad.tolist() == [1, 1, 1]
    if b.requires_grad:
        assert b.grad.dtype == b_dtype
        assert b.grad.tolist() == [[6], [6]]


def test_gradients_of_mixed_dtypes_can_be_differentiated():
    a, b = leaf([3.0], np.float32), leaf([2.0])
    (g,) = grad(a * a * b, a, create_graph=True)
    assert g.dtype == np.float32
    second = grad(g, [a, b])
    assert [(s.dtype, s.tolist()) for s in second] == [(np.float32, [4]), (np.float64, [6])]


# --- no_grad ------------------------------------------------------------------


def test_no_grad_nests_and_is_restored():
    states = [is_grad_enabled()]
    with no_grad():
        states.append(is_grad_enabled())
        with enable_grad():
            states.append(is_grad_enabled())
            with no_grad(), no_grad():
                states.append(is_grad_enabled())
            states.append(is_grad_enabled())
        states.append(is_grad_enabled())
    states.append(is_grad_enabled())
    assert states == [True, False, True, False, True, False, True]


def test_no_grad_is_restored_after_an_exception():
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert is_grad_enabled()


def test_one_no_grad_may_be_entered_again():
    block = no_grad()
    with block:
        with block:
            assert not is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()


@no_grad()
def doubled(x, depth=0):
    """Twice x."""
    return doubled(x, depth - 1) if depth else x * 2


def test_no_grad_decorates():
    assert doubled.__doc__ == "Twice x."
    assert not doubled(leaf([1.0])).requires_grad
    assert not doubled(leaf([1.0]), depth=3).requires_grad
    assert is_grad_enabled()


def test_results_under_no_grad_are_leaves():
    x = leaf([1.0])
    with no_grad():
        y = x * 2
        fresh = Tensor([1.0], requires_grad=True)
    assert y.is_leaf
    assert not y.requires_grad
    assert fresh.requires_grad


def run_in_threads(*functions):
    failures = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failures, failures


def test_the_mode_is_each_threads_own():
    inside, done = threading.Event(), threading.Event()

    def quiet():
        with no_grad():
            inside.set()
            assert done.wait(10)
            assert not is_grad_enabled()

    def recording():
        assert inside.wait(10)
        assert is_grad_enabled()
        assert (leaf([1.0]) * 2).requires_grad
        done.set()

    run_in_threads(quiet, recording)


def test_a_decorated_function_in_two_threads():
    """One thread comes from a no_grad block, and leaves the function last."""
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    @no_grad()
    def both(entered, may_leave):
        entered.set()
        assert may_leave.wait(10)

    def first():
        both(first_in, second_in)
        assert is_grad_enabled()
        first_out.set()

    def second():
        assert first_in.wait(10)
        with no_grad():
            both(second_in, first_out)
            assert not is_grad_enabled()
        assert is_grad_enabled()

    run_in_threads(first, second)


def test_backward_in_several_threads():
    x = leaf(np.arange(10.0))
    results = {}

    def one(k):
        results[k] = grad((x * x * k).sum(), x)[0].data

    run_in_threads(*[lambda k=k: one(k) for k in range(8)])
    for k in range(8):
        np.testing.assert_array_equal(results[k], 2 * k * x.data)


# --- Function -----------------------------------------------------------------


class Broken(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, g):
        raise ZeroDivisionError


class SinCos(Function):
    """Two outputs, both saved, and a third that has no gradient."""

    @staticmethod
    def forward(ctx, x):
        sin, cos = Tensor(np.sin(x.data)), Tensor(np.cos(x.data))
        ctx.save_for_backward(sin, cos)
        return sin, cos, np.sign(x.data).astype(np.int64)

    @staticmethod
    def backward(ctx, g_sin, g_cos, g_sign):
        sin, cos = ctx.saved_tensors
        assert isinstance(g_sin, Tensor)
        assert isinstance(g_cos, Tensor)
        assert g_sign.shape == sin.shape
        return g_sin * cos - g_cos * sin


class TorchSinCos(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        sin, cos = x.sin(), x.cos()
        ctx.save_for_backward(sin, cos)
        return sin, cos

    @staticmethod
    def backward(ctx, g_sin, g_cos):
        sin, cos = ctx.saved_tensors
        return g_sin * cos - g_cos * sin


def test_several_outputs():
    x = leaf([0.3, -1.0])
    sin, cos, sign = SinCos.apply(x)
    assert [t.requires_grad for t in (sin, cos, sign)] == [True, True, False]
    assert sin.grad_fn is cos.grad_fn
    (sin * sin * cos).sum().backward()
    other = torch.tensor(x.tolist(), dtype=torch.float64, requires_grad=True)
    s, c = TorchSinCos.apply(other)
    (s * s * c).sum().backward()
    np.testing.assert_allclose(x.grad.data, other.grad, rtol=1e-14)


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_several_outputs(which):
    """The others get zeros."""
    x = leaf([0.3, -1.0])
    (g,) = grad(SinCos.apply(x)[which].sum(), x)
    expected = [np.cos(x.data), -np.sin(x.data)][which]
    np.testing.assert_allclose(g.data, expected, rtol=1e-15)


def test_several_outputs_differentiated_three_times():
    x = leaf([0.3, -1.0])
    sin, cos, _ = SinCos.apply(x)
    y = (sin * cos * 2).sum()  # sin(2x)
    for expected in (2 * np.cos(2 * x.data), -4 * np.sin(2 * x.data), -8 * np.cos(2 * x.data)):
        (g,) = grad(y, x, create_graph=True)
        np.testing.assert_allclose(g.data, expected, rtol=1e-13)
        y = g.sum()


def test_grad_of_one_output_by_another_result():
    x = leaf([0.3])
    sin, cos, _ = SinCos.apply(x)
    found = grad((sin * 3 + cos * 5).sum(), [cos, sin])
    assert values(found) == [[5], [3]]


class Scale(Function):
    """x * k, for a number k."""

    seen = None

    @staticmethod
    def forward(ctx, x, k, note=None):
        Scale.seen = ctx.needs_input_grad
        assert not is_grad_enabled()
        ctx.k = k
        return x.data * k

    @staticmethod
    def backward(ctx, g):
        return g * ctx.k, None, None


def test_arguments_that_are_no_tensors():
    x = leaf([1.0])
    Scale.apply(x, 3.0, "note").sum().backward()
    assert x.grad.tolist() == [3]
    assert Scale.seen == (True, False, False)
    Scale.apply(x.detach(), 3.0, x)
    assert Scale.seen == (False, False, True)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda g: (g, g), RuntimeError, "returned 2 gradients, expected 1"),
        (lambda g: (), RuntimeError, "returned 0 gradients, expected 1"),
        (lambda g: g.sum(), RuntimeError, r"shape \(\) for argument 0, expected .* shape \(2,\)"),
        (lambda g: g.data, TypeError, "returned ndarray for argument 0, expected a Tensor or None"),
    ],
)
@pytest.mark.parametrize("of_leaf", [True, False])
def test_a_wrong_backward_is_named(result, error, message, of_leaf):
    class Bad(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return result(g)

    x = leaf([1.0, 2.0])
    with pytest.raises(error, match=f"Bad.backward .*{message}"):
        Bad.apply(x if of_leaf else x * 2).sum().backward()
    assert x.grad is None


def test_a_gradient_of_none_is_no_gradient():
    class Stop(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return None

    x, y = leaf([1.0]), leaf([2.0])
    (Stop.apply(x * x) * y).sum().backward()
    assert x.grad is None
    assert y.grad.tolist() == [1]
    assert grad(Stop.apply(x), x, allow_unused=True) == (None,)


def test_a_function_that_returns_its_argument():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x

    x = leaf([3.0])
    y = Same.apply(x)
    assert y is not x
    assert x.is_leaf
    y.sum().backward()
    assert x.grad.tolist() == [3]
    y = Same.apply(x)
    with no_grad():
        y += 1
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        y.sum().backward()


def test_a_function_must_define_both():
    with pytest.raises(NotImplementedError, match=r"must define forward"):
        Function.apply(leaf([1.0]))

    class OnlyForward(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

    with pytest.raises(NotImplementedError, match=r"must define backward"):
        OnlyForward.apply(leaf([1.0])).sum().backward()


def test_a_forward_that_fails_restores_the_mode():
    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Fails.apply(leaf([1.0]))
    assert is_grad_enabled()


def test_only_what_leads_to_the_inputs_is_run():
    x, y = leaf([1.0]), leaf([2.0])
    out = (Broken.apply(x) * y).sum()
    assert grad(out, y)[0].tolist() == [1]


# --- depth --------------------------------------------------------------------


DEPTH = 100_000


def test_a_deep_graph():
    """Forward, backward and deletion, of nodes that save arguments and results: none recurses."""
    x, one = leaf([0.5]), leaf([1.0])
    y = x
    for _ in range(DEPTH // 4):
        y = (y * one + 0).exp().log()
    nodes = weakref.ref(y.grad_fn), weakref.ref(one)
    y.backward()
    assert x.grad.item() == pytest.approx(1)
    assert one.grad.item() == pytest.approx(0.5 * (DEPTH // 4))
    del y, one
    assert [node() for node in nodes] == [None, None]


def test_a_deep_graph_that_is_never_used():
    y = leaf([1.0])
    for _ in range(DEPTH // 2):
        y = y * y
    node = weakref.ref(y.grad_fn)
    del y
    assert node() is None


def test_a_deep_graph_of_a_gradient():
    x = leaf([1.0])
    y = x
    for _ in range(DEPTH // 20):
        y = y * x
    (g,) = grad(y, x, create_graph=True)
    assert g.tolist() == [DEPTH // 20 + 1]
    (second,) = grad(g, x, retain_graph=True)
    assert second.tolist() == [DEPTH // 20 * (DEPTH // 20 + 1)]
    node = weakref.ref(g.grad_fn)
    del y, g
    assert node() is None


def test_a_wide_graph():
    x = leaf([1.0])
    total = x * 0
    parts = [x * k for k in range(3000)]
    for part in parts:
        total = total + part
    total.backward()
    assert x.grad.tolist() == [sum(range(3000))]


# --- memory -------------------------------------------------------------------


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "func",
    [
        lambda x: x.exp(),
        lambda x: x.sqrt().tanh().sigmoid(),
        lambda x: SinCos.apply(x)[0],
        lambda x: x.sum(0) @ x.T,
        lambda x: x[0] * x[[0, 0]] + x.max(dim=0).values - x.max(),
        lambda x: x.where(x.data > 1, x * x).reshape(-1).flatten(),
        lambda x: x / (x**x) - abs(x),
        lambda x: instnorm.functional.instance_norm(x.reshape(1, 1, 4)),
    ],
)
@pytest.mark.parametrize("passes", [0, 1, 2])
def test_a_graph_is_freed_without_the_garbage_collector(func, passes):
    """A node that kept its own output would be a cycle."""
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = func(x)
    alive = [weakref.ref(y), weakref.ref(y.grad_fn)]
    if passes:
        (g,) = grad(y.sum(), x, create_graph=passes == 2)
        alive += [weakref.ref(g), *([weakref.ref(g.grad_fn)] if passes == 2 else [])]
        del g
    del y
    assert [ref() for ref in alive] == [None] * len(alive)


@pytest.mark.usefixtures("no_collector")
def test_saved_arrays_are_freed_by_backward():
    x = leaf(np.ones(10))
    hidden = x.exp()
    array = weakref.ref(hidden.data)
    y = (hidden * hidden).sum()
    del hidden
    assert array() is not None
    y.backward()
    assert array() is None


@pytest.mark.usefixtures("no_collector")
def test_operations_outside_the_graph_keep_nothing():
    x = tensor([1.0])
    hidden = x.exp()
    ref = weakref.ref(hidden)
    y = hidden * hidden
    del hidden
    assert ref() is None
    assert y.grad_fn is None


# --- hooks --------------------------------------------------------------------------


def test_hooks_see_and_replace_gradients_as_in_torch():
    seen = {}
    for library in (instnorm, torch):
        calls = seen[library] = []
        x = library.tensor([1.0, 2.0], requires_grad=True)
        y = x * x
        removed = y.register_hook(lambda g: g * 1000)
        y.register_hook(lambda g, calls=calls: calls.append(("y", g.tolist())))
        y.register_hook(lambda g: g * 10)
        x.register_hook(lambda g, calls=calls: calls.append(("x", g.tolist())))
        x.register_hook(lambda g: g + 1)
        removed.remove()
        removed.remove()
        (y * 3 + x + y).sum().backward()
        calls.append(x.grad.tolist())
    assert seen[instnorm] == seen[torch]


def test_hooks_apply_to_what_grad_returns():
    x = leaf([1.0, 2.0])
    y = x * 2
    x.register_hook(lambda g: g + 1)
    y.register_hook(lambda g: g * 10)
    of_x, of_y = grad((y * 3).sum(), [x, y])
    assert of_y.tolist() == [30, 30]
    assert of_x.tolist() == [61, 61]
    assert x.grad is None


def test_a_hook_on_one_output_of_several():
    class Both(Function):
        @staticmethod
        def forward(ctx, a):
            return a.data * 2, a.data * 3

        @staticmethod
        def backward(ctx, g, h):
            return g * 2 + h * 3

    x = leaf([1.0])
    first, second = Both.apply(x)
    second.register_hook(lambda g: g * 10)
    (first + second).sum().backward()
    assert x.grad.tolist() == [32]
    x.grad = None
    first, second = Both.apply(x)
    second.register_hook(lambda g: g * 10)
    first.sum().backward()  # the hook has nothing to see
    assert x.grad.tolist() == [2]


def test_hooks_can_be_differentiated_through():
    x = leaf([3.0])
    y = x * x
    y.register_hook(lambda g: g * x)
    (first,) = grad(y, x, create_graph=True)
    assert first.tolist() == [18]  # 2 x^2
    assert grad(first, x)[0].tolist() == [12]


@pytest.mark.parametrize("returned", [1.0, Tensor([1.0, 2.0])], ids=["a number", "a shape"])
def test_a_hook_that_returns_something_else_is_an_error(returned):
    x = leaf([3.0])
    with x.register_hook(lambda g: returned), pytest.raises(RuntimeError, match="a hook returned"):
        (x * 2).backward()
    (x * 2).backward()
    assert x.grad.tolist() == [2]
    with pytest.raises(RuntimeError, match="requires gradients, and this one does not"):
        Tensor([1.0]).register_hook(print)
