"""What the benchmarks and the comparison with other libraries share: shapes and arrays."""

import numpy as np

import instnorm

SHAPES = (
    (1, 3, 2, 2),
    (8, 16, 8, 8),
    (32, 512, 7, 7),
    (16, 64, 56, 56),
    (1, 256, 64, 64),
    (4, 32, 256, 256),
    (1, 3, 1080, 1920),
    (2, 32, 64, 64, 64),
    (16, 256, 2048),
)
LAYOUTS = ("contiguous", "channels-last")
DTYPES = ("float32", "float64", "float16", "bfloat16")


def dtype_named(name):
    """The NumPy dtype; bfloat16 is ml_dtypes', which the other types do not need."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def empty(shape, dtype, layout):
    """An (N, C, spatial...) array in the memory order that `layout` names."""
    if layout == "contiguous":
        return np.empty(shape, dtype)
    return np.moveaxis(np.empty((shape[0], *shape[2:], shape[1]), dtype), -1, 1)


class Inputs:
    """The arrays of a training step; every layout has the same values."""

    def __init__(self, shape, dtype="float32", layout="contiguous"):
        dtype = dtype_named(dtype)
        rng = np.random.default_rng(0)

        def normal(shape):
            return rng.standard_normal(shape, np.float64 if dtype == np.float64 else np.float32)

        self.x, self.grad_output = (empty(shape, dtype, layout) for _ in range(2))
        # Sample by sample, for the sake of the benchmarks of peak memory.
        for array in (self.x, self.grad_output):
            for sample in array:
                sample[...] = normal(shape[1:])
        self.weight = rng.uniform(0.5, 2, shape[1]).astype(dtype)
        self.bias = normal(shape[1]).astype(dtype)


def layer_for(inputs, requires_grad=True):
    """The layer of the inputs' rank, with their weight and bias."""
    layers = (instnorm.nn.InstanceNorm1d, instnorm.nn.InstanceNorm2d, instnorm.nn.InstanceNorm3d)
    layer = layers[inputs.x.ndim - 3](inputs.x.shape[1], affine=True, dtype=inputs.weight.dtype)
    layer.load_state_dict({"weight": inputs.weight, "bias": inputs.bias})
    return layer.requires_grad_(requires_grad)


def set_threads(n):
    """Use n threads, or fail: a benchmark of fewer would mislead."""
    instnorm.set_num_threads(n)
    if instnorm.get_num_threads() != n:
        raise RuntimeError(f"asked for {n} threads, got {instnorm.get_num_threads()}")


def forward_and_backward(inputs):
    """A training step through the array functions: y, and the three gradients."""
    y, mean, rstd = instnorm.instance_norm(inputs.x, inputs.weight, inputs.bias, return_stats=True)
    return y, *instnorm.instance_norm_backward(
        inputs.grad_output, inputs.x, inputs.weight, mean=mean, rstd=rstd
    )
