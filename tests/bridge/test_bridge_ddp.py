"""Converted models under DistributedDataParallel: two processes, and the gradients of one."""

import subprocess
import sys

import pytest
from helpers import TESTS
from helpers.beside_torch import torch

pytestmark = pytest.mark.torch

WORKER = TESTS / "helpers" / "ddp_worker.py"
RANKS = 2


def test_two_ranks_find_the_gradients_of_the_whole_batch(tmp_path):
    from helpers import ddp_worker

    processes = [
        subprocess.Popen(
            [
                *(sys.executable, WORKER, str(rank), str(RANKS)),
                *(tmp_path / "rendezvous", tmp_path / "gradients.pt"),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=100)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    found = torch.load(tmp_path / "gradients.pt")

    model, *batch = ddp_worker.model_and_batch()
    expected = ddp_worker.gradients(model, model, *batch)  # PyTorch's own layers
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-14)
