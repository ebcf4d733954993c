"""Time of the array functions, beside a copy of the same bytes."""

import numpy as np

import instnorm

SHAPES = {
    "(8,16,8,8)": (8, 16, 8, 8),
    "(32,512,7,7)": (32, 512, 7, 7),
    "(16,64,56,56)": (16, 64, 56, 56),
    "(1,256,64,64)": (1, 256, 64, 64),
    "(4,32,256,256)": (4, 32, 256, 256),
    "(1,3,1080,1920)": (1, 3, 1080, 1920),
    "(2,32,64,64,64)": (2, 32, 64, 64, 64),
    "(16,256,2048)": (16, 256, 2048),
}


class Kernels:
    params = (list(SHAPES), ["float32", "float64"])
    param_names = ("shape", "dtype")

    def setup(self, shape, dtype):
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal(SHAPES[shape]).astype(dtype)
        self.grad_output = rng.standard_normal(SHAPES[shape]).astype(dtype)
        channels = self.x.shape[1]
        self.weight = rng.uniform(0.5, 2, channels).astype(dtype)
        self.bias = rng.standard_normal(channels).astype(dtype)
        # Written once, so that no benchmark counts the page faults of fresh memory.
        self.out = np.full_like(self.x, 1)
        _, self.mean, self.rstd = instnorm.instance_norm(self.x, return_stats=True)

    def time_copy(self, shape, dtype):
        np.copyto(self.out, self.x)

    def time_forward(self, shape, dtype):
        instnorm.instance_norm(self.x, self.weight, self.bias, out=self.out)

    def time_backward(self, shape, dtype):
        instnorm.instance_norm_backward(
            self.grad_output,
            self.x,
            self.weight,
            mean=self.mean,
            rstd=self.rstd,
            out=self.out,
        )


class Layer:
    """A layer's training step on the smallest input: what Python costs."""

    def setup(self):
        self.layer = instnorm.nn.InstanceNorm2d(3, affine=True)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((1, 3, 2, 2)).astype(np.float32)
        self.x = instnorm.Tensor(x, requires_grad=True)
        self.grad_output = instnorm.Tensor(x[::-1].copy())

    def time_forward(self):
        with instnorm.no_grad():
            self.layer(self.x)

    def time_training_step(self):
        self.layer(self.x).backward(self.grad_output)
