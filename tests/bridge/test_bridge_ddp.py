"""Converted models under data parallelism and sharding: two processes, and the gradients of one."""

import subprocess
import sys

import pytest
from helpers import TESTS
from helpers.beside_torch import torch

pytestmark = pytest.mark.torch

WORKER = TESTS / "helpers" / "ddp_worker.py"
RANKS = 2


@pytest.mark.parametrize(
    "way",
    [
        "DDP",
        pytest.param("FSDP", marks=pytest.mark.slow),
        pytest.param("fully_shard", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_find_the_gradients_of_the_whole_batch(way, tmp_path):
    from helpers import ddp_worker

    processes = [
        subprocess.Popen(
            [
                *(sys.executable, WORKER, way, str(rank), str(RANKS)),
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
            process.communicate()
    found = torch.load(tmp_path / "gradients.pt")

    model, *batch = ddp_worker.model_and_batch()
    ddp_worker.backward(model, *batch)  # PyTorch's own layers
    expected = ddp_worker.gradients(model)
    assert found.keys() == ddp_worker.FORMS.keys()
    for gradients in found.values():
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-13)
