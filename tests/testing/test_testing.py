"""gradcheck and gradgradcheck: what they let pass, what they catch, and what they leave behind."""

import gc
import re

import numpy as np
import pytest

import instnorm
from instnorm import Tensor
from instnorm.autograd import Function
from instnorm.testing import GradcheckError, gradcheck, gradgradcheck


def leaf(shape=(2, 3), seed=0, positive=False):
    values = np.random.default_rng(seed).standard_normal(shape)
    return Tensor(np.abs(values) + 0.5 if positive else values, requires_grad=True)


class Wrong(Function):
    """x ** 3, with a gradient that is off by `slip`."""

    @staticmethod
    def forward(ctx, x, slip):
        ctx.save_for_backward(x)
        ctx.slip = slip
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x * x * 3 + ctx.slip), None


class WrongTwice(Function):
    """x ** 3, whose gradient is right and does not know how to be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.detach() ** 2 * 3)


# --- right gradients pass ------------------------------------------------------------


RIGHT = {
    "product": (lambda a, b: a * b, [leaf(), leaf(seed=1)]),
    "broadcast": (lambda a, b: a * b, [leaf((3,)), leaf((2, 1), 1)]),
    "one scalar": (lambda a: a.exp(), [leaf(())]),
    "tuple": (lambda a, b: (a * b, a.sum(), b.exp()), [leaf(), leaf(seed=1)]),
    "list": (lambda a: [a * a, a.exp()], [leaf()]),
    "named tuple with indices": (lambda a: a.max(dim=1), [leaf()]),
    "constant input": (lambda a, b: a * b, [leaf(), Tensor(np.ones(3))]),
    "constants that are no Tensor": (lambda a, k, s: a * k if s else a, [leaf(), 3.0, "yes"]),
    "unused input": (lambda a, b: a.exp(), [leaf(), leaf((4,))]),
    "view": (lambda a: a.reshape(6), [leaf()]),
    "empty": (lambda a: a * a, [leaf((0, 3))]),
    "one output without history": (lambda a: (a * a, Tensor(np.ones(3))), [leaf()]),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_right_gradients_pass(check, name):
    func, inputs = RIGHT[name]
    assert check(func, inputs) is True


def test_a_single_input_needs_no_sequence():
    assert gradcheck(lambda a: a * a, leaf())


def test_inputs_reached_in_another_way():
    """The parameters of a module are perturbed where they are."""
    w = leaf((3, 2))
    assert gradcheck(lambda x, _: x @ w, [leaf(), w])
    assert gradgradcheck(lambda x, _: x @ w, [leaf(), w])


def test_results_of_operations_can_be_inputs():
    a = leaf()
    assert gradcheck(lambda b: b.exp(), a * 2)


def test_strided_inputs():
    a = Tensor(np.random.default_rng(0).standard_normal((4, 6)).T[::2], requires_grad=True)
    assert gradcheck(lambda a: a.exp(), a)


def test_under_no_grad():
    with instnorm.no_grad():
        assert gradcheck(lambda a: a.exp(), leaf())
        assert gradgradcheck(lambda a: a.exp(), leaf())
        assert not instnorm.is_grad_enabled()


def test_grad_outputs_of_the_caller():
    v = leaf(seed=5)
    assert gradgradcheck(lambda a: a.exp(), leaf(), v)
    assert gradgradcheck(lambda a: a.exp(), leaf(), [Tensor(np.ones((2, 3)))])
    with pytest.raises(GradcheckError, match=r"for inputs\[1\]"):
        # Of a gradient that does not depend on its cotangent.
        gradgradcheck(lambda a: Lost.apply(a), leaf(), v)


class Lost(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g.detach() * 2


# --- wrong ones are caught ---------------------------------------------------------------


@pytest.mark.parametrize("slip", [1e-2, -1e-2, 1.0, np.nan, np.inf])
def test_a_wrong_gradient_is_caught(slip):
    assert gradcheck(lambda a: Wrong.apply(a, 0.0), leaf())
    assert gradcheck(lambda a: Wrong.apply(a, slip), leaf(), raise_exception=False) is False
    with pytest.raises(GradcheckError):
        gradcheck(lambda a: Wrong.apply(a, slip), leaf())


def test_the_tolerances_are_those_asked_for():
    off = leaf(positive=True)
    assert gradcheck(lambda a: Wrong.apply(a, 1e-3), off, atol=2e-3)
    with pytest.raises(GradcheckError):
        gradcheck(lambda a: Wrong.apply(a, 1e-3), off, atol=1e-5, rtol=1e-5)
    assert gradcheck(lambda a: Wrong.apply(a, 1e-3), off, atol=0, rtol=2e-3 / 0.75)


def test_a_wrong_second_derivative_is_caught():
    assert gradcheck(WrongTwice.apply, leaf())
    with pytest.raises(GradcheckError, match=r"outputs\[0\] for inputs\[0\]"):
        gradgradcheck(WrongTwice.apply, leaf())
    assert not gradgradcheck(WrongTwice.apply, leaf(), raise_exception=False)


def test_an_error_that_sums_to_zero_is_caught():
    """One of all ones as the cotangent would let it pass."""

    class Turned(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g[::-1]

    with pytest.raises(GradcheckError):
        gradcheck(Turned.apply, leaf((4,)))


def test_an_error_in_one_entry_of_one_input_is_named():
    mask = np.zeros((2, 3))
    mask[1, 2] = 0.5

    def func(a, b, c):
        return a * c, (b * c + (b * mask).detach()) * 1.0

    message = (
        r"gradient of outputs\[1\] for inputs\[1\] is off at entry \(1, 2\): "
        r"analytical (\S+), numerical (\S+); "
        r"half the step gives the same numerical value, so the analytical one is off "
        r"\(1 of 6 entries are off, this one the most\)"
    )
    with pytest.raises(GradcheckError) as caught:
        gradcheck(func, [leaf(), leaf(seed=1), leaf(seed=2)])
    found = re.fullmatch(message, str(caught.value))
    assert found
    analytical, numerical = (float(v) for v in found.groups())
    assert 0.2 < abs(numerical - analytical) < 0.8


def test_the_position_counts_inputs_that_are_not_checked():
    with pytest.raises(GradcheckError, match=r"inputs\[2\]"):
        gradcheck(lambda a, k, b: a * k + b.detach(), [leaf(), 3.0, leaf(seed=1)])


def test_a_kink_is_told_from_a_wrong_gradient():
    x = Tensor(np.array([1.0, 3e-7]), requires_grad=True)
    with pytest.raises(GradcheckError, match=r"entry \(1,\): .* not smooth here"):
        gradcheck(lambda x: x.abs(), x)


def test_missing_gradients_are_caught():
    with pytest.raises(GradcheckError, match=r"analytical 0, numerical"):
        gradcheck(lambda a: a.detach() * 2, leaf())


# --- what it leaves behind ------------------------------------------------------------------


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_inputs_and_grads_are_as_before(check):
    a, b = leaf(), leaf(seed=1)
    a.grad = kept = Tensor(np.ones((2, 3)))
    before = a.data.tobytes(), b.data.tobytes()
    array = a.data
    check(lambda a, b: (a * b).exp(), [a, b])
    assert (a.data.tobytes(), b.data.tobytes()) == before
    assert a.data is array
    assert a.grad is kept
    assert (kept.data == 1).all()
    assert b.grad is None


def test_an_earlier_graph_can_still_be_used():
    a = leaf()
    y = (a * a).sum()
    gradcheck(lambda a: a * a, a)
    y.backward()
    np.testing.assert_array_equal(a.grad.data, 2 * a.data)


def test_inputs_are_restored_where_func_fails():
    a = leaf()
    before = a.data.tobytes()
    calls = []

    def func(a):
        calls.append(a.data.copy())
        if len(calls) == 4:
            raise ZeroDivisionError
        return a * a

    with pytest.raises(ZeroDivisionError):
        gradcheck(func, a)
    assert calls[3].tobytes() != before
    assert a.data.tobytes() == before


def test_the_same_seed_gives_the_same_message():
    def message(**options):
        with pytest.raises(GradcheckError) as caught:
            gradcheck(lambda a: Wrong.apply(a, 1.0), leaf(), **options)
        return str(caught.value)

    assert message(seed=3) == message(seed=3)
    assert message(seed=3) != message(seed=4)


def test_nothing_is_kept_alive():
    def tensors():
        gc.collect()
        return len([o for o in gc.get_objects() if type(o) is Tensor])

    before = tensors()
    gradgradcheck(lambda a: a.exp(), leaf())
    assert tensors() == before


# --- what it refuses --------------------------------------------------------------------------


def read_only():
    tensor = leaf()
    tensor.data.flags.writeable = False
    return tensor


def overlapping():
    view = np.lib.stride_tricks.as_strided(np.arange(4.0), (2, 3), (8, 8), writeable=True)
    return Tensor(view, requires_grad=True)


def twins():
    memory = np.arange(5.0)
    return [Tensor(memory[:3], requires_grad=True), Tensor(memory[2:])]


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (Tensor(np.ones(3, np.float32), True), TypeError, r"inputs\[0\] has dtype float32"),
        ([leaf(), Tensor(np.ones(3, "f"), True)], TypeError, r"inputs\[1\] has dtype float32"),
        (Tensor(np.ones(3)), ValueError, "none of the inputs is a Tensor that requires"),
        ([], ValueError, "none of the inputs"),
        ([1.0, np.ones(3)], ValueError, "none of the inputs"),
        (read_only(), ValueError, r"inputs\[0\] is read-only"),
        (overlapping(), ValueError, r"inputs\[0\] has elements that share memory"),
        ([leaf(), leaf(), leaf(), *twins()], ValueError, r"inputs\[3\] shares memory with"),
        ([leaf()] * 2, ValueError, r"inputs\[0\] shares memory with inputs\[1\]"),
    ],
    ids=[
        "float32",
        "second",
        "constant",
        "nothing",
        "arrays",
        "read-only",
        "overlapping",
        "twins",
        "same",
    ],
)
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_refused_inputs(check, inputs, error, message):
    for raise_exception in (True, False):
        with pytest.raises(error, match=message):
            check(lambda *a: a[0] * 2, inputs, raise_exception=raise_exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps must be finite and greater than 0, got 0"),
        ({"eps": -1e-6}, "eps"),
        ({"eps": np.nan}, "eps"),
        ({"atol": -1.0}, "atol must be finite and at least 0, got -1.0"),
        ({"rtol": np.inf}, "rtol must be finite and at least 0, got inf"),
    ],
)
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_refused_options(check, options, message):
    with pytest.raises(ValueError, match=message):
        check(lambda a: a * a, leaf(), **options)


@pytest.mark.parametrize(
    ("func", "error", "message"),
    [
        (lambda a: a.data, TypeError, "func must return a Tensor or a tuple of these, got ndarray"),
        (lambda a: (a, 3.0), TypeError, r"func returned float as outputs\[1\]"),
        (lambda a: a > 0, ValueError, "no Tensor of floating point dtype"),
        (lambda a: (), ValueError, "no Tensor of floating point dtype"),
    ],
)
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_refused_results(check, func, error, message):
    with pytest.raises(error, match=message):
        check(func, leaf())


@pytest.mark.parametrize(
    ("grad_outputs", "error", "message"),
    [
        ([], ValueError, "grad_outputs has 0 entries, expected one for each of the 1"),
        (Tensor(np.ones(3)), ValueError, r"grad_outputs\[0\] has shape \(3,\), expected that of"),
        ([np.ones((2, 3))], TypeError, r"grad_outputs\[0\] must be a Tensor, got ndarray"),
    ],
)
def test_refused_grad_outputs(grad_outputs, error, message):
    with pytest.raises(error, match=message):
        gradgradcheck(lambda a: a * a, leaf(), grad_outputs)


def test_second_derivatives_of_a_constant_are_refused():
    with pytest.raises(ValueError, match="no output of func depends on an input"):
        gradgradcheck(lambda a: a.detach(), leaf())
