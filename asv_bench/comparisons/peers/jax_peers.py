"""JAX: the formula, compiled for the CPU, with JAX's own gradients.

JAX's arrays have no memory layout to choose; channels-last there is a matter of shape, so
such a case is computed on (N, spatial..., C) arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np

from .peer import EPS, Peer

VERSION = jax.__version__


class Jit(Peer):
    name, label = "jax", "JAX jit"

    def forward(self, case):
        x, weight, bias = _inputs(case)
        compiled = jax.jit(_instance_norm(case))
        return lambda: jax.block_until_ready((compiled(x, weight, bias),))

    def training(self, case):
        x, weight, bias = _inputs(case)
        grad_output = jax.device_put(_as_shaped(case, case.grad_output))
        function = _instance_norm(case)

        @jax.jit
        def step(x, weight, bias, grad_output):
            y, gradients = jax.vjp(function, x, weight, bias)
            return y, *gradients(grad_output)

        return lambda: jax.block_until_ready(step(x, weight, bias, grad_output))

    def arrays(self, case, result):
        arrays = [np.asarray(part) for part in result]
        if case.layout == "contiguous":
            return arrays
        return [np.moveaxis(a, -1, 1) if a.ndim == len(case.shape) else a for a in arrays]


def _as_shaped(case, array):
    return array if case.layout == "contiguous" else np.moveaxis(array, 1, -1)


def _inputs(case):
    return jax.device_put((_as_shaped(case, case.x), case.weight, case.bias))


def _instance_norm(case):
    first = 2 if case.layout == "contiguous" else 1
    axes = tuple(range(first, first + len(case.axes)))
    shape = [1] * len(case.shape)
    shape[1 if case.layout == "contiguous" else -1] = -1
    # As the layers built on JAX do it: statistics of half precision are taken in single.
    wide = jnp.promote_types(case.dtype, jnp.float32)

    def function(x, weight, bias):
        x, weight, bias = (a.astype(wide) for a in (x, weight, bias))
        mean = x.mean(axes, keepdims=True)
        rstd = jax.lax.rsqrt(x.var(axes, keepdims=True) + EPS)
        y = (x - mean) * rstd * weight.reshape(shape) + bias.reshape(shape)
        return y.astype(case.dtype)

    return function


def peers(threads):
    # The size of its thread pool is set in the environment, before the import.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    return [Jit()]
