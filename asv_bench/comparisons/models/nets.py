"""The nets: MONAI's DynUNet and nnU-Net's own U-Nets, in 3D and 2D, and fast style transfer."""

import torch
from torch import nn


def dyn_unet(spatial_dims, filters):
    from monai.networks.nets import DynUNet

    strides = [1] + [2] * (len(filters) - 1)
    return DynUNet(
        spatial_dims=spatial_dims,
        in_channels=1,
        out_channels=3,
        kernel_size=[3] * len(filters),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=filters,
    )


def nnunet(name, dims, filters, blocks):
    """A U-Net of the package that nnU-Net takes its nets from, as its plans set it up."""
    from dynamic_network_architectures.architectures import unet

    stages = len(filters)
    return getattr(unet, name)(
        1,
        stages,
        filters,
        getattr(nn, f"Conv{dims}d"),
        3,
        [1] + [2] * (stages - 1),
        blocks,
        3,
        [1] * (stages - 1) if name == "ResidualEncoderUNet" else [2] * (stages - 1),
        conv_bias=True,
        norm_op=getattr(nn, f"InstanceNorm{dims}d"),
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )


def conv_norm(channels, to, size, stride=1):
    return nn.Sequential(
        nn.Conv2d(channels, to, size, stride, padding=size // 2, padding_mode="reflect"),
        nn.InstanceNorm2d(to, affine=True),
    )


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.branch = nn.Sequential(
            conv_norm(channels, channels, 3), nn.ReLU(), conv_norm(channels, channels, 3)
        )

    def forward(self, x):
        return x + self.branch(x)


def style_transfer():
    """The image transformation net of Johnson, Alahi and Li, 2016, with instance norm."""
    return nn.Sequential(
        *(conv_norm(3, 32, 9), nn.ReLU()),
        *(conv_norm(32, 64, 3, 2), nn.ReLU()),
        *(conv_norm(64, 128, 3, 2), nn.ReLU()),
        *(Residual(128) for _ in range(5)),
        *(nn.Upsample(scale_factor=2), conv_norm(128, 64, 3), nn.ReLU()),
        *(nn.Upsample(scale_factor=2), conv_norm(64, 32, 3), nn.ReLU()),
        nn.Conv2d(32, 3, 9, padding=4, padding_mode="reflect"),
    )


# Name, maker, shape of the input.
NETS = {
    "DynUNet 3D": (lambda: dyn_unet(3, [32, 64, 128, 256, 320]), (1, 1, 64, 64, 64)),
    "DynUNet 2D": (lambda: dyn_unet(2, [32, 64, 128, 256, 512, 512, 512]), (4, 1, 256, 256)),
    "PlainConvUNet 3D": (
        lambda: nnunet("PlainConvUNet", 3, [32, 64, 128, 256, 320], [2] * 5),
        (1, 1, 64, 64, 64),
    ),
    "ResidualEncoderUNet 2D": (
        lambda: nnunet("ResidualEncoderUNet", 2, [32, 64, 128, 256, 512], [1, 3, 4, 6, 6]),
        (2, 1, 256, 256),
    ),
    "style transfer": (style_transfer, (1, 3, 512, 512)),
}


def build(name):
    """The net with the same weights each time, an input, and a gradient of its output."""
    make, shape = NETS[name]
    torch.manual_seed(0)
    net, image = make(), torch.randn(shape)
    return net, image, torch.randn(shape[0], 3, *shape[2:])


def without_norms(net):
    """The net with `Identity` in place of each instance norm."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.instancenorm._InstanceNorm):
                setattr(module, name, nn.Identity())
    return net
