"""A script as someone who knows PyTorch writes it, line by line the same in both libraries."""

import importlib

import numpy as np
import pytest
from helpers.beside_torch import torch
from helpers.tensors import normal

import instnorm

pytestmark = pytest.mark.torch

LIBRARIES = {"instnorm": instnorm, "torch": torch}


def script(name, state=None, steps=24):
    """Train a net of most of the layers; return its first state, and the losses."""
    torch = LIBRARIES[name]
    nn, optim = torch.nn, torch.optim
    F = importlib.import_module(f"{name}.nn.functional")
    data = importlib.import_module(f"{name}.utils.data")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    class Block(nn.Module):
        def __init__(self, channels, norm):
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.norm = norm
            self.act = nn.LeakyReLU(0.2, inplace=True)

        def forward(self, x):
            return x + self.act(self.norm(self.conv(x)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True))
            self.blocks = nn.ModuleList(
                [
                    Block(8, nn.InstanceNorm2d(8, affine=True)),
                    Block(8, nn.BatchNorm2d(8)),
                    Block(8, nn.GroupNorm(2, 8)),
                ]
            )
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            self.colour = nn.Embedding(5, 8)
            self.heads = nn.ModuleDict({"class": nn.Linear(16 * 16, 10), "size": nn.Linear(256, 1)})
            self.drop = nn.Dropout(0.0)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

        def forward(self, x, colour):
            x = self.stem(x)
            x = x + self.colour(colour)[:, :, None, None]
            for block in self.blocks:
                x = block(x)
            small = F.max_pool2d(x, kernel_size=2)
            x = torch.cat([x[:, :4], self.up(small)[:, 4:]], dim=1)
            halves = x.chunk(2, dim=1)
            x = torch.stack([F.gelu(halves[0]), F.silu(halves[1])], dim=1)
            x = torch.flatten(x, 1).view(x.size(0), 2, -1).permute(0, 2, 1)
            x = F.layer_norm(x, x.shape[1:]).mean(dim=-1).repeat(1, 1)
            x = self.drop(x.reshape(x.shape[0], -1))
            return self.heads["class"](x), self.heads["size"](x).squeeze(1)

    torch.manual_seed(0)
    net = Net().to(device)
    if state is not None:
        net.load_state_dict(state)
    first = {key: np.asarray(value).copy() for key, value in net.state_dict().items()}
    head = list(net.heads.parameters())
    body = [p for key, p in net.named_parameters() if not key.startswith("heads")]
    optimizer = optim.AdamW([{"params": body}, {"params": head, "lr": 0.02}], lr=0.01)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    images = torch.from_numpy(normal(24, 1, 8, 8).astype(np.float32))
    colours = torch.arange(24) % 5 if name == "torch" else torch.from_numpy(np.arange(24) % 5)
    labels = torch.from_numpy(np.arange(24) * 7 % 10)
    loader = data.DataLoader(
        data.TensorDataset(images, colours, labels), batch_size=8, shuffle=False, drop_last=True
    )
    losses = []
    for _ in range(steps // 3):
        net.train()
        for inputs, colour, target in loader:
            inputs, target = inputs.to(device), target.to(device)
            scores, size = net(inputs, colour)
            loss = F.cross_entropy(scores, target, label_smoothing=0.1)
            loss = loss + 0.1 * F.smooth_l1_loss(size, target.float() / 10)
            loss = loss + F.binary_cross_entropy_with_logits(size, (target > 4).float())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), max_norm=1.0)
            optimizer.step()
            losses.append(float(f"{loss:.6f}"))
        scheduler.step()
    net.eval()
    with torch.no_grad():
        probabilities = torch.softmax(net(images, colours)[0], dim=1)
    assert probabilities.sum(dim=1).clamp(0.999, 1.001).shape == (24,)
    values, indices = torch.max(probabilities, 1)
    accuracy = (indices == labels).float().mean().item()
    return first, np.array(losses), values.std().item(), accuracy


def test_the_losses_are_those_of_torch():
    state, losses, spread, accuracy = script("torch")
    found = script("instnorm", state)
    assert found[0].keys() == state.keys()
    np.testing.assert_allclose(found[1], losses, rtol=1e-4)
    assert losses[-1] < 0.9 * losses[0]
    assert found[2] == pytest.approx(spread, rel=1e-2)
    assert found[3] == pytest.approx(accuracy)
