"""A convolutional VAE of one's own, with batch normalization: the code of the page on training in the reference."""

import re
from pathlib import Path

import torch

from vaetut import load, sgvb_b, train
from vaetut.data import binarize

PAGE = Path(__file__).parents[2] / "book" / "api" / "aevb.md"
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
DEFINITIONS, CALL = CODE.split("torch.manual_seed(0)")
PARTS: dict = {}
exec(DEFINITIONS, PARTS)
ConvolutionalVAE = PARTS["ConvolutionalVAE"]


def parameters(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_it_trains_and_resumes_to_the_bit(tmp_path):
    data = load("digits")

    def new():
        torch.manual_seed(0)
        return ConvolutionalVAE()

    whole, parts = new(), new()
    options = {"learning_rate": 0.01, "batch_size": 499, "checkpoint": tmp_path / "run.pt"}  # 1497 = 3 x 499
    history = train(whole, data, epochs=3, **options | {"checkpoint": None})
    assert history.validation[-1] > history.validation[0] + 0.5
    train(parts, data, epochs=1, **options)
    train(parts, data, epochs=3, resume=True, **options)
    assert torch.equal(parameters(whole), parameters(parts))  # the running statistics, too
    whole.eval()
    x = binarize(data.test)
    with torch.no_grad():
        assert sgvb_b(whole, whole.encode(x), x).shape == (300,)


def test_a_last_batch_of_one_is_left_out():
    """Batch normalization needs more than one image."""
    torch.manual_seed(0)
    x = torch.rand(21, 64)
    history = train(ConvolutionalVAE(), x, epochs=1, batch_size=10, drop_last=True)
    assert len(history.train) == 1


def test_the_page_runs_and_resumes(tmp_path, monkeypatch):
    """Its optimizer hook, scheduler, patience and checkpoint work together; a resumed run is the uninterrupted one."""
    monkeypatch.chdir(tmp_path)

    def run(epochs, checkpoint):
        call = CALL.replace("epochs=60", f"epochs={epochs}").replace("conv.pt", checkpoint)
        assert call.count(f"epochs={epochs}") == 1
        parts = dict(PARTS)
        torch.manual_seed(0)
        exec(call, parts)
        return parts

    whole = run(4, "whole.pt")
    run(2, "parts.pt")
    parts = run(4, "parts.pt")
    assert whole["history"] == parts["history"]
    assert torch.equal(parameters(whole["model"]), parameters(parts["model"]))
    assert whole["history"].validation[-1] > whole["history"].validation[0]
