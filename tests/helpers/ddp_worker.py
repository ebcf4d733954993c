"""One rank of data-parallel steps: `python ddp_worker.py WAY RANK WORLD_SIZE RENDEZVOUS RESULT`.

Rank 0 saves the gradients that one of `WAYS` leaves in the model, converted in each of `FORMS`.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from instnorm.bridge.torch import convert, converted

FORMS = {
    "plain": ({}, {}),
    "in place": (
        {"fuse_activation": True, "inplace": True},
        {"1": "inplace", "4": "leaky_relu, inplace"},
    ),
}


def model_and_batch():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.InstanceNorm2d(8, affine=True),
        nn.Tanh(),
        nn.Conv2d(8, 4, 3),
        nn.InstanceNorm2d(4, affine=True),
        nn.LeakyReLU(0.1),
        nn.Dropout(0.0),
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.double(), torch.randn(4, 3, 12, 12).double(), torch.randn(4, 4, 8, 8).double()


def backward(model, input, target):
    ((model(input) - target) ** 2).mean().backward()


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def replicated(plain, *batch):
    backward(nn.parallel.DistributedDataParallel(plain), *batch)
    return gradients(plain)


def wrapped_and_sharded(plain, *batch):
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    model = FullyShardedDataParallel(
        plain,
        auto_wrap_policy=ModuleWrapPolicy([nn.Conv2d, nn.InstanceNorm2d]),
        use_orig_params=True,
        device_id=torch.device("cpu"),
    )
    backward(model, *batch)
    with FullyShardedDataParallel.summon_full_params(model, with_grads=True):
        return {
            name.replace("_fsdp_wrapped_module.", ""): gradient.clone()
            for name, gradient in gradients(model).items()
        }


def fully_sharded(plain, *batch):
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    # A module that is sharded by itself gets views of its inputs, which nothing may overwrite.
    norms = [] if converted(plain).fused else [plain[1], plain[4]]
    for part in (plain[0], *norms, plain[3], plain):
        fully_shard(part, mesh=mesh)
    assert converted(plain) == ["1", "4"]
    backward(plain, *batch)
    return {name: gradient.full_tensor() for name, gradient in gradients(plain).items()}


WAYS = {"DDP": replicated, "FSDP": wrapped_and_sharded, "fully_shard": fully_sharded}


def main(way, rank, world_size, rendezvous, result):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size
    )
    found = {}
    for form, (options, fused) in FORMS.items():
        plain, input, target = model_and_batch()
        assert converted(convert(plain, **options)).fused == fused
        shard = slice(rank * len(input) // world_size, (rank + 1) * len(input) // world_size)
        found[form] = WAYS[way](plain, input[shard], target[shard])
    if rank == 0:
        torch.save(found, result)
    dist.barrier()  # a rank that is done first takes away what the others still talk to
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
