"""One net in one variant: what a process of its own is asked for."""

import re
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Variant(NamedTuple):
    # "PyTorch"; "instnorm", "fused" or "in place": converted; "Identity": no norms; or
    # "float64": PyTorch in double precision
    norm: str
    channels_last: bool = False


class Job:
    """Runs in a worker's process; the methods are what can be asked for."""

    def __init__(self, net_name, variant):
        import torch

        from . import nets

        net, self.image, self.grad_output = nets.build(net_name)
        if variant.norm in ("instnorm", "fused", "in place"):
            from instnorm.bridge.torch import convert

            in_place = variant.norm == "in place"
            convert(net, fuse_activation=in_place or variant.norm == "fused", inplace=in_place)
        elif variant.norm == "Identity":
            nets.without_norms(net)
        elif variant.norm == "float64":
            net.double()
            self.image, self.grad_output = self.image.double(), self.grad_output.double()
        if variant.channels_last:
            volumes = self.image.dim() == 5
            layout = torch.channels_last_3d if volumes else torch.channels_last
            net.to(memory_format=layout)
            self.image = self.image.to(memory_format=layout)
        self.net = net
        self.optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
        self.resting = _status("VmRSS")

    def inference(self):
        import torch

        self.net.eval()
        with torch.inference_mode():
            return self.net(self.image)

    def training(self):
        self.net.train()
        self.optimizer.zero_grad()
        (self.net(self.image) * self.grad_output).mean().backward()
        self.optimizer.step()

    def first(self, task):
        """The task's output or gradients, and the MiB that it takes beyond the net at rest."""
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        output = getattr(self, task)()
        peak = (_status("VmHWM") - self.resting) / 1024
        if task == "inference":
            return output.contiguous().numpy(), peak
        gradients = [p.grad.contiguous().numpy().ravel() for p in self.net.parameters()]
        return np.concatenate(gradients), peak

    def seconds(self, task):
        time.sleep(0.01)  # the previous worker's threads stop spinning
        start = time.perf_counter()
        getattr(self, task)()
        return time.perf_counter() - start


def _status(field):
    """A figure from the process's status, in KiB."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1])
