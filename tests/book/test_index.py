"""The examples that a newcomer meets first: the first page's, with the numbers in its picture, and the README's."""

import re
from pathlib import Path

import pytest
import torch
from torch.distributions import Independent, Normal

import vaetut

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "book" / "index.md"


@pytest.fixture
def model() -> vaetut.LinearGaussian:
    """z ~ N(0, 1) and x | z ~ N((z, 2z), 1/4), as the page says."""
    torch.set_default_dtype(torch.float64)
    return vaetut.LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)


def test_example_prints_what_the_page_shows(capsys) -> None:
    """As a reader pastes it: nothing is imported or defined before."""
    text = PAGE.read_text(encoding="utf-8")
    code, printed = re.findall(r"^```(?:python|text)\n(.*?)^```", text, re.M | re.S)
    exec(code, {})
    assert capsys.readouterr().out == printed


def test_picture(model) -> None:
    """Each bar is as long as its bound and its gap, and says so."""
    svg = re.search(r"<svg.*</svg>", PAGE.read_text(encoding="utf-8"), re.S)[0].replace("−", "-")
    svg = re.sub(r"</?tspan[^>]*>", "", svg)  # italic and bold letters
    x = torch.tensor([0.3, 1.0])
    evidence, posterior = model.log_evidence(x).item(), model.posterior(x)
    line = float(re.search(r'd="M([\d.]+) ', svg)[1])
    (left,) = {float(n) for n in re.findall(r'class="b" x="([\d.]+)"', svg)}
    assert f"log p(x) = {evidence:.2f} nats" in svg
    assert f"{evidence:.2f} nats; for the posterior" in svg

    rows = re.split(r"(?=<text[^>]*>N\()", svg)[1:]
    assert len(rows) == 5
    scale = None
    for row in rows:
        mean, deviation = map(float, re.search(r"N\(([\d.-]+), ([\d.]+)²\)", row).groups())
        q = Independent(Normal(torch.tensor([mean]), torch.tensor([deviation])), 1)
        bound, gap = model.elbo(q, x).item(), vaetut.kl_divergence(q, posterior).item()
        first, second = (float(n) for n in re.findall(r'class="[bg]" [^>]*width="([\d.]+)"', row)[:2])
        assert f"{bound:.2f}<" in row
        assert f"gap {gap:.2f}<" in row or "gap" not in row
        assert left + first + second == pytest.approx(line, abs=0.2)
        scale = scale or second / gap
        assert second == pytest.approx(scale * gap, abs=0.2)


def test_the_readmes_lines_run(capsys, tmp_path, monkeypatch):
    """As they stand; what they print is a bound, and above it the estimate of what it bounds."""
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
    )
    monkeypatch.chdir(tmp_path)  # they save a model
    exec(compile(code, "README.md", "exec"), {})
    said = re.fullmatch(r"bound (\S+), log p\(x\) (\S+) nats per image\n", capsys.readouterr().out)
    bound, log_p = map(float, said.groups())
    assert -44.4 < bound < log_p < 0, "44.4 nats is what 64 fair coins cost"
