"""Layers: Module and what toy models are built of, under PyTorch's names.

`instnorm.nn.mindspore` holds the instance norms with MindSpore's.
"""

from instnorm.nn import init, mindspore
from instnorm.nn.conditional import (
    ConditionalInstanceNorm1d,
    ConditionalInstanceNorm2d,
    ConditionalInstanceNorm3d,
)
from instnorm.nn.instancenorm import (
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LazyInstanceNorm1d,
    LazyInstanceNorm2d,
    LazyInstanceNorm3d,
)
from instnorm.nn.layers import (
    AvgPool2d,
    Conv2d,
    Flatten,
    Identity,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReflectionPad2d,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    Upsample,
)
from instnorm.nn.loss import CrossEntropyLoss, L1Loss, MSELoss
from instnorm.nn.module import Module
from instnorm.nn.parameter import Parameter, UninitializedBuffer, UninitializedParameter
from instnorm.nn.revin import RevIN

__all__ = [
    "AvgPool2d",
    "ConditionalInstanceNorm1d",
    "ConditionalInstanceNorm2d",
    "ConditionalInstanceNorm3d",
    "Conv2d",
    "CrossEntropyLoss",
    "Flatten",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "L1Loss",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LeakyReLU",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "ReflectionPad2d",
    "RevIN",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "UninitializedBuffer",
    "UninitializedParameter",
    "Upsample",
    "init",
    "mindspore",
]
