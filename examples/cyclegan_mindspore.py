"""A CycleGAN generator from PyTorch to MindSpore and back: checkpoints, and outputs compared.

Run it where both frameworks are installed: python examples/cyclegan_mindspore.py
docs/pytorch-and-mindspore.md goes through it, with the commands that do the same.
"""

import tempfile
from pathlib import Path

import numpy as np

from instnorm import checkpoints, convert

CHANNELS, BLOCKS = 64, 6  # for pictures of 128 x 128 and less


def pytorch():
    """The generator as its authors have it, with its names and its way to start."""
    import torch
    from torch import nn

    class ResnetBlock(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv_block = nn.Sequential(
                *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)),
                nn.ReLU(),
                *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)),
            )

        def forward(self, x):
            return x + self.conv_block(x)

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            c = CHANNELS
            steps = [nn.ReflectionPad2d(3), nn.Conv2d(3, c, 7), nn.InstanceNorm2d(c), nn.ReLU()]
            for width in (c, 2 * c):
                steps += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)]
                steps += [nn.InstanceNorm2d(2 * width), nn.ReLU()]
            steps += [ResnetBlock(4 * c) for _ in range(BLOCKS)]
            for width in (4 * c, 2 * c):
                steps += [nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1)]
                steps += [nn.InstanceNorm2d(width // 2), nn.ReLU()]
            self.model = nn.Sequential(*steps, nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7), nn.Tanh())

        def forward(self, x):
            return self.model(x)

    generator = Generator()
    torch.manual_seed(0)
    for name, parameter in generator.named_parameters():
        nn.init.normal_(parameter, 0, 0.02 if name.endswith("weight") else 0.1)
    return generator


def mindspore():
    """The same in MindSpore: the calls are those of `instnorm advise`."""
    from mindspore import nn

    class ResnetBlock(nn.Cell):
        def __init__(self, width):
            super().__init__()
            self.conv_block = nn.SequentialCell(
                nn.ReflectionPad2d((1, 1, 1, 1)),
                nn.Conv2d(width, width, 3, pad_mode="valid", has_bias=True),
                nn.InstanceNorm2d(width, momentum=0.9, affine=False),
                nn.ReLU(),
                nn.ReflectionPad2d((1, 1, 1, 1)),
                nn.Conv2d(width, width, 3, pad_mode="valid", has_bias=True),
                nn.InstanceNorm2d(width, momentum=0.9, affine=False),
            )

        def construct(self, x):
            return x + self.conv_block(x)

    class Generator(nn.Cell):
        def __init__(self):
            super().__init__()
            c = CHANNELS
            steps = [
                nn.ReflectionPad2d((3, 3, 3, 3)),
                nn.Conv2d(3, c, 7, pad_mode="valid", has_bias=True),
                nn.InstanceNorm2d(c, momentum=0.9, affine=False),
                nn.ReLU(),
            ]
            for width in (c, 2 * c):
                steps += [
                    nn.Conv2d(width, 2 * width, 3, 2, "pad", padding=1, has_bias=True),
                    nn.InstanceNorm2d(2 * width, momentum=0.9, affine=False),
                    nn.ReLU(),
                ]
            steps += [ResnetBlock(4 * c) for _ in range(BLOCKS)]
            for width in (4 * c, 2 * c):
                steps += [
                    # Not output_padding=1, which adds rows of zeros in MindSpore.
                    nn.Conv2dTranspose(
                        width, width // 2, 3, 2, "pad", padding=(1, 0, 1, 0), has_bias=True
                    ),
                    nn.InstanceNorm2d(width // 2, momentum=0.9, affine=False),
                    nn.ReLU(),
                ]
            steps += [nn.ReflectionPad2d((3, 3, 3, 3))]
            steps += [nn.Conv2d(c, 3, 7, pad_mode="valid", has_bias=True), nn.Tanh()]
            self.model = nn.SequentialCell(*steps)

        def construct(self, x):
            return self.model(x)

    return Generator()


def main():
    """Carry the weights there and back through files, and run all three on one picture."""
    import mindspore as ms
    import torch

    from instnorm.bridge import mindspore as bridge

    ours, theirs, again = pytorch(), mindspore(), pytorch()
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = ours(torch.from_numpy(picture)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "generator.ckpt"), Path(folder, "generator.pth")

        state = convert.state_dict(ours.state_dict(), to="mindspore", model=ours).state
        there.write_bytes(checkpoints.dumps(there, state))
        unfound, unused = ms.load_param_into_net(theirs, ms.load_checkpoint(str(there)))
        print(f"MindSpore did not find {len(unfound)} entries, and had no place for {len(unused)}")
        # MindSpore has no instance norm for a CPU; the bridge gives it one.
        found = bridge.convert(theirs)(ms.Tensor(picture)).asnumpy()
        print(f"PyTorch and MindSpore differ by {np.abs(found - expected).max():.1e}")

        ms.save_checkpoint(theirs, str(there))
        state = convert.state_dict(checkpoints.read(there).arrays, to="pytorch", model=ours).state
        back.write_bytes(checkpoints.dumps(back, state))
        for parameter in again.parameters():
            parameter.data.zero_()
        again.load_state_dict(torch.load(back))
        with torch.no_grad():
            returned = again(torch.from_numpy(picture)).numpy()
        print(f"there and back, the output differs by {np.abs(returned - expected).max():.1e}")


if __name__ == "__main__":
    main()
