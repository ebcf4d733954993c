"""summary and draw: what they tell, and that they leave everything as it was."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import instnorm
from instnorm import nn, tensor


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.act(self.conv(x)) + x), x


def net():
    return nn.Sequential(nn.Conv2d(1, 2, 1), Residual())


def test_summary_tells_names_shapes_and_parameters():
    model = net()
    model[0].weight.requires_grad = False
    found = instnorm.summary(model, np.zeros((4, 1, 5, 6), np.float32))
    assert found.rows == [
        ("", "Sequential", "(4, 2, 5, 6), (4, 2, 5, 6)", 0),
        ("  0", "Conv2d", "(4, 2, 5, 6)", 4),
        ("  1", "Residual", "(4, 2, 5, 6), (4, 2, 5, 6)", 0),
        ("    conv", "Conv2d", "(4, 2, 5, 6)", 36),
        ("    act", "ReLU", "(4, 2, 5, 6)", 0),
        ("    act", "ReLU", "(4, 2, 5, 6)", 0),
    ]
    assert (found.parameters, found.trainable) == (40, 38)
    assert "40 parameters, 38 of them trainable" in repr(found)
    assert max(map(len, repr(found).splitlines())) < 80


def test_summary_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), nn.Linear(2, 2))
    model[1].eval()
    before = {name: value.copy() for name, value in model.state_dict().items()}
    instnorm.summary(model, instnorm.randn(5, 2))
    assert [m.training for m in model.modules()] == [True, True, False, True]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match="input has shape"):
        instnorm.summary(model[2], instnorm.randn(5, 3))
    calls = []
    model[2].register_forward_hook(lambda *_: calls.append(1))
    model(instnorm.randn(5, 2))
    assert calls == [1]
    with pytest.raises(TypeError, match="model must be a Module, got int"):
        instnorm.summary(3, None)


def test_draw_has_every_operation_once():
    model = net()
    y, _ = model(instnorm.randn(1, 1, 4, 4))
    drawing = instnorm.draw((y * y).mean(), model)
    for name in ("0.weight (2, 1, 1, 1)", "0.bias (2,)", "1.conv.weight (2, 2, 3, 3)"):
        assert drawing.dot.count(f'"{name}"') == 1
    # conv, conv, relu, +, relu, *, and the mean: a sum and a division
    boxes = drawing.dot.count("label=")
    assert drawing.dot.count("Conv") == 2
    assert drawing.dot.count("LeakyReLU") == 2
    assert drawing.dot.count('"sum_over"') == drawing.dot.count('"Div"') == 1
    root = ET.fromstring(drawing.svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(texts) == boxes
    lines = list(root.iter("{http://www.w3.org/2000/svg}line"))
    assert len(lines) == drawing.dot.count("->")
    for line in lines:  # downwards, from what is computed from to what is computed
        assert float(line.get("y1")) < float(line.get("y2"))
    assert drawing._repr_svg_() == drawing.svg


def test_draw_writes_files(tmp_path):
    w = tensor([1.0, 2.0], requires_grad=True)
    drawing = instnorm.draw(w * "a<b".count("a"), {"a<b": w})
    drawing.save(tmp_path / "graph.svg")
    drawing.save(tmp_path / "graph.dot")
    assert "a&lt;b (2,)" in (tmp_path / "graph.svg").read_text()
    assert (tmp_path / "graph.dot").read_text().startswith("digraph {")
    assert instnorm.draw(tensor(1.0)).dot == 'digraph {\n  n0 [label="result ()"]\n}'
    with pytest.raises(TypeError, match="tensor must be a Tensor, got float"):
        instnorm.draw(1.0)
