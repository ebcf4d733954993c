"""The same instance norm under two names: PyTorch's and MindSpore's.

Run it: python examples/two_flavours.py
"""

import numpy as np

import instnorm

# One image of three channels, each of 2 x 2 pixels: 0.1, 0.2, ... 1.2.
image = np.linspace(0.1, 1.2, 12, dtype=np.float32).reshape(1, 3, 2, 2)


# --- As in PyTorch: weight and bias, which there are only with affine=True -----------

layer = instnorm.nn.InstanceNorm2d(3, affine=True)
like_pytorch = layer(instnorm.tensor(image))

print("PyTorch's names:  ", *layer.state_dict())
print(like_pytorch.detach().numpy())


# --- As in MindSpore: gamma and beta, which there are always --------------------------

layer = instnorm.nn.mindspore.InstanceNorm2d(3)
like_mindspore = layer(instnorm.tensor(image))

print("MindSpore's names:", *layer.state_dict())
print(like_mindspore.detach().numpy())


# --- Every channel climbs by the same steps, so each comes out the same ---------------

published = np.array([[-1.34110, -0.44703], [0.44703, 1.34110]])
for result in (like_pytorch, like_mindspore):
    np.testing.assert_allclose(result.data, np.broadcast_to(published, image.shape), atol=2e-6)
print("Both agree with the published numbers to 2e-6.")
