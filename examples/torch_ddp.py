"""Data-parallel training of a converted model, on as many processes as torchrun starts.

The losses do not depend on how many share the batch of four:

    torchrun --nproc-per-node 2 examples/torch_ddp.py
    torchrun --nproc-per-node 4 examples/torch_ddp.py

Needs PyTorch: pip install instnorm[torch]
"""

import os

import torch
import torch.distributed as dist
from torch import nn

from instnorm.bridge.torch import convert

if "RANK" in os.environ:  # set by torchrun
    dist.init_process_group("gloo")
else:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
rank, world_size = dist.get_rank(), dist.get_world_size()

torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1),
    nn.InstanceNorm2d(16, affine=True),
    nn.ReLU(),
    nn.Conv2d(16, 3, 3, padding=1),
)
model = nn.parallel.DistributedDataParallel(convert(net, memory_format=torch.channels_last))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

images = torch.rand(4, 3, 32, 32)
mine = images[rank::world_size]
for step in range(5):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(mine), 1 - mine)
    loss.backward()
    optimizer.step()
    mean_loss = loss.detach()
    dist.all_reduce(mean_loss)
    if rank == 0:
        print(f"step {step}: loss {mean_loss / world_size:.5f}")
dist.destroy_process_group()
