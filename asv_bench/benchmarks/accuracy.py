"""The largest error against long double, in units in the last place of max(1, |exact|)."""

import numpy as np

import instnorm

SHAPE = (2, 4, 128, 128)
EPS = 1e-5
LONG = np.longdouble

DATA = {
    "standard normal": (0, 1),
    "mean 1e3": (1e3, 1),
    "mean 1e5": (1e5, 1),
    "spread 1e-3": (0, 1e-3),
    "spread 1e18": (0, 1e18),
    "spread 1e30": (0, 1e30),
}


class Error:
    params = (list(DATA), ["float32", "float64"])
    param_names = ("data", "dtype")
    unit = "ulp"

    def setup(self, data, dtype):
        mean, spread = DATA[data]
        rng = np.random.default_rng(0)
        self.x = (mean + spread * rng.standard_normal(SHAPE)).astype(dtype)
        self.grad_output = rng.standard_normal(SHAPE).astype(dtype)

    def track_forward(self, data, dtype):
        x_hat, _ = normalized(self.x)
        return largest_error(instnorm.instance_norm(self.x, eps=EPS), x_hat)

    def track_grad_input_times_std(self, data, dtype):
        # Multiplied by the standard deviation, gradients have the scale of grad_output.
        _, mean, rstd = instnorm.instance_norm(self.x, eps=EPS, return_stats=True)
        grad_input, _, _ = instnorm.instance_norm_backward(
            self.grad_output, self.x, mean=mean, rstd=rstd
        )
        x_hat, std = normalized(self.x)
        g = self.grad_output.astype(LONG)
        exact = g - spatial_mean(g) - x_hat * spatial_mean(g * x_hat)
        return largest_error(grad_input, exact, scale=std)


def spatial_mean(array):
    return array.mean((2, 3), keepdims=True)


def normalized(x):
    """The exact result and the square root of variance plus eps, in long double."""
    x = x.astype(LONG)
    centred = x - spatial_mean(x)
    # The mean was rounded; what it missed is in the differences.
    centred -= spatial_mean(centred)
    std = np.sqrt(spatial_mean(centred**2) + LONG(EPS))
    return centred / std, std


def largest_error(actual, exact, scale=1):
    unit = np.spacing(np.maximum(1, np.abs(exact)).astype(actual.dtype)).astype(LONG)
    return float((np.abs(actual.astype(LONG) * scale - exact) / unit).max())
