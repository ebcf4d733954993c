"""What the benchmarks and the comparison with other libraries share: shapes and arrays."""

import math

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

# Where each array begins inside a page. Processors tell a load from the stores before it by the
# last twelve bits of their addresses at first, and a loop that reads and writes at the same place
# of a page waits without need. These places are 448 bytes or more from each other, from the start
# of a page, where the large arrays of most libraries begin, and from where instnorm's begin.
PAGE = 4096
PLACES = {"x": 576, "grad_output": 1600, "y": 2624, "grad_input": 3648}


def dtype_named(name):
    """The NumPy dtype; bfloat16 is ml_dtypes', which the other types do not need."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def placed(shape, dtype, name):
    """An array in C order, not yet written, at the place in a page that is the name's."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + PAGE, np.uint8)
    start = (PLACES[name] - memory.ctypes.data) % PAGE
    return memory[start : start + size].view(dtype).reshape(shape)


def empty(shape, dtype, layout, name):
    """An (N, C, spatial...) array in the memory order that `layout` names."""
    if layout == "contiguous":
        return placed(shape, dtype, name)
    return np.moveaxis(placed((shape[0], *shape[2:], shape[1]), dtype, name), -1, 1)


class Inputs:
    """The arrays of a training step; every layout has the same values."""

    def __init__(self, shape, dtype="float32", layout="contiguous"):
        dtype = dtype_named(dtype)
        rng = np.random.default_rng(0)

        def normal(shape):
            return rng.standard_normal(shape, np.float64 if dtype == np.float64 else np.float32)

        self.x = empty(shape, dtype, layout, "x")
        self.grad_output = empty(shape, dtype, layout, "grad_output")
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
