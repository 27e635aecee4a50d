"""The command: what it writes and prints, what it refuses, and that a stopped run goes on to the bit."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from vaetut import (
    VAE,
    binarize,
    elbo_terms,
    load,
    log_evidence,
    sgvb_b,
    train,
)
from vaetut._support import files
from vaetut.cli import evaluate as evaluation
from vaetut.cli import main, run_folder
from vaetut.cli.arguments import new_settings
from vaetut.cli.options import RECIPES, Settings
from vaetut.cli.schedule import Schedule
from vaetut.exact import LinearGaussian

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ["--epochs", "2", "--hidden-dim", "20", "--latent-dim", "2", "--lr", "0.01"]


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model of the digits."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert run("train", "--out", path, *SMALL) == 0
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def parameters(path):
    return torch.cat([p.detach().flatten() for p in run_folder.open_model(path).model.parameters()])


# --- train


def test_train_is_the_function_train(folder):
    torch.manual_seed(0)
    model = VAE(64, 2, (20,))
    history = train(model, load("digits"), epochs=2, learning_rate=0.01)
    assert torch.equal(torch.cat([p.flatten() for p in model.parameters()]), parameters(folder))
    assert json.loads((folder / "history.json").read_text()) == history.to_dict()


def test_what_the_folder_holds(folder):
    assert {path.name for path in folder.iterdir()} == {
        "model.pt",
        "history.json",
        "config.json",
        "checkpoint.pt",
    }
    content = torch.load(folder / "model.pt", weights_only=True)
    assert (content["format"], content["dataset"]) == ("vaetut model", "digits")
    VAE(**content["arguments"]).load_state_dict(content["parameters"])
    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["lr"] == 0.01 and config["options"]["hidden_dim"] == [20]
    assert config["versions"]["torch"] == torch.__version__ and config["seconds"] > 0


def test_json_is_one_object(tmp_path, capsys):
    assert run("train", "--out", tmp_path / "run", *SMALL, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["options"]["epochs"] == 2 and -60 < result["validation"] < 0


@pytest.mark.parametrize("decay", [[], ["--lr-decay", "0.5", "--warm-up", "0.6"]])
def test_resume_is_the_uninterrupted_run(tmp_path, capsys, monkeypatch, stop_in_step, decay):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = [*SMALL, "--epochs", "3", *decay]
    assert run("train", "--out", whole, *arguments) == 0

    stop_in_step(20)  # in the second epoch of 15 steps
    capsys.readouterr()
    assert run("train", "--out", parts, *arguments) == 130
    assert f"vaetut train --out {parts} --resume" in capsys.readouterr().err
    assert (parts / "model.pt").exists() and (parts / "checkpoint.pt").exists()
    monkeypatch.undo()
    assert run("train", "--out", parts, "--resume") == 0  # with the options that it was started with
    assert torch.equal(parameters(whole), parameters(parts))
    assert (whole / "history.json").read_text() == (parts / "history.json").read_text()


def test_resume_with_more_epochs(copy):
    assert run("train", "--out", copy, "--resume", "--epochs", "3") == 0
    history = json.loads((copy / "history.json").read_text())
    assert len(history["train"]) == 3
    assert json.loads((copy / "config.json").read_text())["options"]["epochs"] == 3


def test_rate_falls():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = Schedule("sgd", 1.0, 0.5, 0.0, 8).optimizer([weight])
    rates = []
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.ones(1)
        optimizer.step()
    assert rates[:5] == [1.0] * 5
    assert rates[6] == pytest.approx((1 + 0.005) / 2)
    assert rates[8] == pytest.approx(0.005)
    assert weight.item() == pytest.approx(-sum(rates))  # each step with the rate that it is said to have


def test_warm_up():
    """The value is the bound's; a quarter of the way, the gradient has a quarter of the divergence's."""
    torch.manual_seed(0)
    model = VAE(4, 2, 5)
    x = torch.rand(3, 4).round()
    schedule = Schedule("sgd", 1e-3, 0.0, 0.5, 16)
    optimizer = schedule.optimizer(model.parameters())

    def gradients(bound):
        torch.manual_seed(1)
        value = bound(model, model.encode(x), x, 2)
        return value, torch.autograd.grad(value.sum(), list(model.encoder.parameters()))

    for taken, weight in ((0, 1 / 8), (1, 2 / 8), (7, 1.0), (12, 1.0)):
        state = optimizer.state_dict()
        state["param_groups"][0]["steps"] = taken
        optimizer.load_state_dict(state)  # as a resumed run does it
        terms = [lambda *a: elbo_terms(*a).reconstruction, lambda *a: elbo_terms(*a).kl]
        (_, first), (_, second) = (gradients(term) for term in terms)
        value, found = gradients(schedule.bound)
        assert torch.equal(value, gradients(sgvb_b)[0])
        for f, a, b in zip(found, first, second, strict=True):
            assert torch.allclose(f, a - weight * b, atol=1e-5)


@pytest.mark.slow
def test_the_best_recipe_compiled(tmp_path):
    """The weight that warms up and the rate that falls do so in a compiled step too."""
    few = ["--hidden-dim", "8,8", "--latent-dim", "2", "--batch-size", "500", "--dataset", "digits"]
    paths = {name: tmp_path / name for name in ("eager", "compiled")}
    curves = {}
    for name, more in (("eager", []), ("compiled", ["--compile"])):
        given = ["--recipe", "best", "--epochs", "6", "--warm-up", "0.9", "--lr", "0.01", *few, *more]
        assert run("train", "--out", paths[name], *given) == 0
        curves[name] = run_folder.read_history(paths[name])["train"]
    assert curves["compiled"] == pytest.approx(curves["eager"], rel=1e-4)


def test_starts_from_a_trained_model(folder, tmp_path):
    new = tmp_path / "new"
    assert (
        run("train", "--out", new, "--init", folder, "--epochs", 1, "--bound", "iwae", "--num-samples", 3)
        == 0
    )
    saved = run_folder.open_model(new)
    assert repr(saved.model) == repr(run_folder.open_model(folder).model)
    before, after = (json.loads((path / "history.json").read_text())["train"] for path in (folder, new))
    assert after[0] > before[0] + 5  # it does not start anew


def test_recipes_name_options():
    for recipe in RECIPES.values():
        assert set(recipe) <= set(Settings.__dataclass_fields__)
    settings = new_settings({"epochs": 3}, "best")
    assert (settings.hidden_dim, settings.epochs, settings.dataset) == ((200, 200), 3, "mnist")


# --- evaluate


def test_evaluate_agrees_with_the_bounds(folder, capsys):
    assert run("evaluate", folder, "--json", "--images", 50, "--num-samples", 400, "--iwae-samples", 20) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["binarize"], result["log_evidence"]["num_samples"]) == (
        50,
        "dynamic",
        400,
    )

    model = run_folder.open_model(folder).model
    x = binarize(load("digits").test, generator=torch.Generator().manual_seed(0))[:50]
    with torch.no_grad():
        q = model.encode(x)
        bounds = sgvb_b(model, q, x, 1000)
    evidence = log_evidence(model, q, x, 2000)
    for key, value, error in (
        ("bound", bounds.mean().item(), 0.0),
        ("log_evidence", evidence.value.mean().item(), evidence.standard_error.norm().item() / 50),
    ):
        allowed = 5 * (result[key]["standard_error"] ** 2 + error**2) ** 0.5 + 0.02
        assert abs(result[key]["value"] - value) < allowed, key
    assert result["bound"]["value"] < result["iwae_bound"]["value"] < result["log_evidence"]["value"]


class WithEncoder(LinearGaussian):
    """A model whose evidence is known, with its posterior widened as the encoder."""

    def encode(self, x):
        posterior = self.posterior(x)
        return torch.distributions.Independent(
            torch.distributions.Normal(
                posterior.mean, 1.2 * posterior.covariance_matrix.diagonal(0, -1, -2).sqrt()
            ),
            1,
        )


def test_evaluation_is_right_where_the_evidence_is_known():
    model = WithEncoder(torch.tensor([[1.0], [2.0]]).double(), torch.zeros(2).double(), 0.5)
    x = model.evidence.sample((200,))
    draws = {"num_samples": 2000, "iwae_samples": 10}
    table, _ = evaluation.measure(model, x, **draws, seed=0, progress=False)
    result = evaluation.summarize(table, **draws)
    q = model.encode(x)
    exact = {
        "log_evidence": model.log_evidence(x).mean(),
        "bound": (
            model.expected_log_likelihood(q, x)
            - torch.distributions.kl_divergence(
                q,
                torch.distributions.Independent(
                    torch.distributions.Normal(torch.zeros(200, 1).double(), 1.0), 1
                ),
            )
        ).mean(),
    }
    for name, value in exact.items():
        z = (result[name]["value"] - value.item()) / result[name]["standard_error"]
        assert abs(z) < 5, (name, z)
        assert 0 < result[name]["standard_error"] < 0.01
        assert result[name]["standard_error_images"] > 0.03  # the images differ by far more than the draws
    assert exact["bound"] < result["iwae_bound"]["value"] < exact["log_evidence"]


def test_evaluate_prints_a_table(folder, capsys):
    assert run("evaluate", folder, "--images", 1, "--num-samples", 4, "--iwae-samples", 2) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split("  ")[0] for line in out.splitlines()[2:]] == [
        "bound (ELBO)",
        "IWAE bound, K = 2",
        "log p(x), 4 draws",
        "reconstruction",
        "KL divergence",
    ]


# --- sample and plot


def test_samples(folder, tmp_path, capsys):
    assert run("sample", folder, "--num", 7, "--file", tmp_path / "a.pt") == 0
    assert run("sample", folder, "--num", 7, "--file", tmp_path / "b.pt", "--seed", 1) == 0
    one, other = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in "ab")
    assert one.shape == (7, 64) and ((one > 0) & (one < 1)).all() and not torch.equal(one, other)
    assert run("sample", folder, "--num", 7, "--file", tmp_path / "new" / "a.png", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"] == 7
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert picture.width > 300


def test_manifold(folder, tmp_path):
    file = tmp_path / "manifold.pt"
    assert run("sample", folder, "--manifold", "--num", 16, "--file", file) == 0
    images = torch.load(file, weights_only=True)
    model = run_folder.open_model(folder).model
    low, high = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([1 / 8, 7 / 8]))
    with torch.no_grad():
        corners = model.likelihood(torch.tensor([[low, high], [high, high], [low, low]])).mean
    assert torch.allclose(images[[0, 3, 12]], corners, atol=1e-5)  # top left, top right, bottom left


def test_plot(folder, tmp_path, capsys):
    assert run("plot", folder, "--to", tmp_path / "pictures") == 0
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"learning-curve.png", "reconstructions.png", "latent-plane.png"}
    assert len(capsys.readouterr().out.splitlines()) == 3


# --- what is refused: exit status 2, one line, and nothing is touched


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--out", "RUN"], "holds a run; --resume continues it, --overwrite replaces it"),
        (["train", "--out", "RUN", "--resume", "--lr", "0.1"], "--lr cannot be 0.1: the run in .* has 0.01"),
        (["train", "--out", "RUN", "--resume", "--epochs", "1"], "epochs must be at least 2"),
        (["train", "--out", "NEW", "--resume"], "holds no run to resume"),
        (["train", "--out", "OTHER"], "holds other files"),
        (["train", "--out", "OTHER", "--overwrite"], "holds other files"),
        (["train", "--out", "FILE"], "is a file"),
        (["train", "--out", "NEW", "--device", "abacus"], "device must be"),
        (["train", "--out", "RUN", "--overwrite", "--device", "abacus"], "device must be"),
        (["train", "--out", "NEW", "--init", "NEW"], "is not a folder"),
        (
            ["train", "--out", "NEW", "--init", "RUN", "--latent-dim", "3"],
            "--latent-dim cannot be 3: .* has 2",
        ),
        (
            ["train", "--out", "NEW", "--warm-up", "0.5", "--bound", "iwae"],
            "--warm-up must be 0 for --bound iwae",
        ),
        (["evaluate", "NEW"], "is not a folder"),
        (["evaluate", "OTHER"], "has no model.pt"),
        (["evaluate", "RUN", "--num-samples", "50"], "at least twice"),
        (["evaluate", "RUN", "--device", "abacus"], "--device must be"),
        (["sample", "RUN", "--file", "samples.gif"], "must end with .png or .pt"),
    ],
)
def test_refused(copy, tmp_path, capsys, arguments, message):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    places = {"RUN": copy, "NEW": tmp_path / "new", "OTHER": tmp_path / "other", "FILE": tmp_path / "file"}
    before = contents(tmp_path)
    capsys.readouterr()
    assert run(*(places.get(argument, argument) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert re.search(message, err), err
    assert contents(tmp_path) == before


def contents(path):
    return {file: file.read_bytes() if file.is_file() else b"" for file in sorted(path.rglob("*"))}


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "--out", "new", "--epochs", "0"],
        ["train", "--out", "new", "--lr", "nan"],
        ["train", "--out", "new", "--lr-decay", "2"],
        ["train", "--out", "new", "--hidden-dim", "200;200"],
        ["train", "--out", "new", "--dataset", "cifar"],
        ["evaluate"],
        ["fly"],
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_failure_is_status_1_and_leaves_all_as_it_was(copy, tmp_path, capsys):
    before = contents(tmp_path)
    for place in (["--out", tmp_path / "run"], ["--out", copy, "--overwrite"]):
        assert run("train", *place, "--lr", "1e30", "--epochs", 1, "--hidden-dim", 5) == 1
        assert "the training bound is not finite" in capsys.readouterr().err
        assert contents(tmp_path) == before


def test_fabric_is_optional(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    assert run("train", "--out", tmp_path / "run", "--devices", 2) == 2
    assert "pip install 'vaetut[scale]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: flip(path, 1000),
        lambda path: path.write_text("no"),
        lambda path: torch.save({"format": "other"}, path),
        lambda path: change(path, version=2),  # without a hash
        lambda path: change(path, version=1, arguments={"data_dim": 3, "latent_dim": 2}),
        lambda path: torch.save(Path("x"), path),  # would run code
    ],
)
def test_damaged_model(copy, capsys, damage):
    damage(copy / "model.pt")
    before = (copy / "model.pt").read_bytes()
    assert run("evaluate", copy) == 2
    message = capsys.readouterr().err
    assert "the file is left as it is" in message and message.count("\n") == 1
    assert "weights_only" not in message
    assert (copy / "model.pt").read_bytes() == before


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def change(path, **parts):
    torch.save(torch.load(path, weights_only=True) | parts, path)


def test_overwrite_replaces_the_run(copy, capsys):
    assert run("train", "--out", copy, *SMALL, "--latent-dim", 3, "--overwrite") == 0
    assert run_folder.open_model(copy).model.latent_dim == 3
    assert run("sample", copy, "--manifold") == 2
    assert "--manifold needs two latent dimensions, this model has 3" in capsys.readouterr().err


def test_a_write_that_fails_leaves_the_file(tmp_path):
    file = tmp_path / "x.json"
    files.write_json(file, {"a": 1})
    with pytest.raises(ZeroDivisionError):
        files.atomically(file, lambda path: path.write_text("half") and 1 / 0)
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


# --- in a process of its own


def test_command_in_a_process(tmp_path):
    command = [sys.executable, "-m", "vaetut", "train", "--out", str(tmp_path / "run"), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["1/2", "2/2"]  # a line an epoch
    assert "next: vaetut evaluate" in done.stdout


@pytest.mark.slow
def test_two_processes_on_the_cpu(tmp_path):
    pytest.importorskip("lightning_fabric")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "vaetut", "train", "--out", str(out), *SMALL, "--device", "cpu"]
    done = subprocess.run(
        [*command, "--devices", "2", "--strategy", "ddp", "--json"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # of the first process alone
    assert result["options"]["devices"] == 2 and -60 < result["validation"] < 0
    assert run_folder.open_model(out).model.latent_dim == 2
