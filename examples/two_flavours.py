"""One instance norm under two names: PyTorch's InstanceNorm2d and MindSpore's.

Run it from the repository: python examples/two_flavours.py
"""

import numpy as np

import instnorm

np.set_printoptions(precision=5, floatmode="fixed")

# One image of three channels, each of 2 x 2 pixels: 0.1, 0.2, ... 1.2.
image = instnorm.tensor(np.linspace(0.1, 1.2, 12, dtype=np.float32).reshape(1, 3, 2, 2))


# --- PyTorch's names: weight and bias, which are there only with affine=True ----------

layer = instnorm.nn.InstanceNorm2d(3, affine=True)
like_pytorch = layer(image).detach().numpy()

print("As in PyTorch:", ", ".join(layer.state_dict()))
print(like_pytorch)


# --- MindSpore's names: gamma and beta, which are always there ------------------------

layer = instnorm.nn.mindspore.InstanceNorm2d(3)
like_mindspore = layer(image).detach().numpy()

print("\nAs in MindSpore:", ", ".join(layer.state_dict()))
print(like_mindspore)


# --- The channels differ in their mean alone, so all of them come out the same --------

print("\nLargest difference between the two:", np.abs(like_pytorch - like_mindspore).max())
