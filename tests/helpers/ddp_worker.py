"""One rank of a data-parallel step: `python ddp_worker.py RANK WORLD_SIZE RENDEZVOUS RESULT`.

Rank 0 saves the gradients that DistributedDataParallel leaves in the model.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from instnorm.bridge.torch import convert, converted


def model_and_batch():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.InstanceNorm2d(8, affine=True),
        nn.Tanh(),
        nn.Conv2d(8, 4, 3),
        nn.InstanceNorm2d(4, affine=True),
    )
    return model.double(), torch.randn(4, 3, 12, 12).double(), torch.randn(4, 4, 8, 8).double()


def gradients(model, plain, input, target):
    ((model(input) - target) ** 2).mean().backward()
    return {name: parameter.grad for name, parameter in plain.named_parameters()}


def main(rank, world_size, rendezvous, result):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size
    )
    plain, input, target = model_and_batch()
    assert converted(convert(plain)) == ["1", "4"]
    model = nn.parallel.DistributedDataParallel(plain)
    shard = slice(rank * len(input) // world_size, (rank + 1) * len(input) // world_size)
    found = gradients(model, plain, input[shard], target[shard])
    if rank == 0:
        torch.save(found, result)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
