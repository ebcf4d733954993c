"""A model's weights from PyTorch's names to MindSpore's and back, with what was renamed.

Run it from the repository: python examples/move_to_mindspore.py
The same for files: instnorm convert model.pt model.ckpt --to mindspore --norms 1
A whole model in both real frameworks: examples/cyclegan_mindspore.py
"""

import numpy as np

from instnorm import convert, nn


def network(norm):
    """The same network for either flavour: only the class of its norm differs."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm(4, affine=True), nn.ReLU())


pytorchs = network(nn.InstanceNorm2d)
pytorchs[1].weight.data[...] = [1.0, 2.0, 3.0, 4.0]
image = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)


# --- A state dict does not tell what its entries belong to: the model does ------------

state, changes = convert.state_dict(pytorchs.state_dict(), to="mindspore", model=pytorchs)
for change in changes:
    print(f"{change.old or '(new)':<9} -> {change.new}")

mindspores = network(nn.mindspore.InstanceNorm2d)
mindspores.load_state_dict(state)
outputs = [net(image).detach().numpy() for net in (pytorchs, mindspores)]
print("Same output:", np.array_equal(*outputs))


# --- Back ---------------------------------------------------------------------------

back, _ = convert.state_dict(mindspores.state_dict(), to="pytorch", model=mindspores)
same = all(np.array_equal(back[name], value) for name, value in pytorchs.state_dict().items())
print("Same state after the way back:", same and list(back) == list(pytorchs.state_dict()))
