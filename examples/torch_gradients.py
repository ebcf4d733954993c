"""How far the gradient of conv - instance norm - conv is off: one image, channels-last.

PyTorch's own layer, then the same model converted. Needs PyTorch: pip install instnorm[torch]
"""

import copy

import torch
from torch import nn

from instnorm.bridge.torch import convert

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16), nn.Conv2d(16, 3, 3))
image, target = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 28, 28)
exact = copy.deepcopy(model).double()
nn.functional.mse_loss(exact(image.double()), target.double()).backward()
for name, change in {"PyTorch": nn.Identity(), "instnorm": convert}.items():
    other = change(copy.deepcopy(model)).to(memory_format=torch.channels_last)
    nn.functional.mse_loss(other(image), target).backward()
    difference = other[0].weight.grad - exact[0].weight.grad
    print(f"{name:9}relative error {difference.norm() / exact[0].weight.grad.norm():.1e}")
