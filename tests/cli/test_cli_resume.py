"""Any combination of options, stopped in any step: a resumed run is the run that was never stopped, to the bit."""

import dataclasses
import itertools
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vaetut.cli import main, options, run_folder
from vaetut.cli.options import Settings

FIRST_EDITION = Path(__file__).parents[1] / "data" / "first-edition"

# What an option can be, by what makes it from text; those with choices or without a value say it themselves.
VALUES = {
    options._positive: ["1", "2"],
    options._share: ["0", "0.4", "1"],
    options._part: ["0.2", "0.4"],
    options._rate: ["0.001", "0.01"],
    options._seed: ["0", "-7"],
    options._widths: ["none", "4", "4,3"],
    options._image_size: ["2x3"],
}
# Where one is given, the others decide nothing (init), or the machine decides (the rest).
ELSEWHERE = {"dataset", "init", "device", "precision", "compile", "devices", "strategy"}
FIXED = {"epochs": ["4"], "batch_size": ["10", "17"]}


def values(field):
    if field.name in FIXED:
        return FIXED[field.name]
    if field.type in (bool, "bool"):
        return [None, ""]
    return list(field.metadata.get("choices") or VALUES[field.metadata["parse"]])


def allowed(combination):
    """What the command refuses, with a message of its own."""
    return combination.get("bound", "sgvb_b") == "sgvb_b" or combination.get("warm_up", "0") == "0"


def pairwise(table):
    """Combinations in which each pair of values of two options occurs, unless it is refused: a greedy cover."""
    chance = random.Random(0)
    names = list(table)
    missing = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x in table[a]
        for y in table[b]
        if allowed({a: x, b: y})
    }
    while missing:
        best, covered = None, set()
        for _ in range(40):
            combination = dict(chance.choice(sorted(missing, key=str)))
            for name in chance.sample(names, len(names)):
                choices = [v for v in table[name] if allowed({**combination, name: v})]
                combination.setdefault(name, chance.choice(choices))
            found = {p for p in missing if all(combination[name] == value for name, value in p)}
            if allowed(combination) and len(found) > len(covered):
                best, covered = combination, found
        if best is not None:
            missing -= covered
            yield best


TABLE = {field.name: values(field) for field in dataclasses.fields(Settings) if field.name not in ELSEWHERE}
COMBINATIONS = list(pairwise(TABLE))


def typed(combination):
    for name, value in combination.items():
        if value is not None:
            yield options.flag(name)
            if value:
                yield value


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny.npy"
    np.save(path, np.random.default_rng(0).random((44, 6)).astype(np.float32))
    return path


def state(folder):
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    flat = [content["model"], content["optimizer"]["state"], content.get("best"), content["random_states"]]
    saved = torch.load(folder / "model.pt", weights_only=True)["parameters"]
    return [t for t in leaves([flat, saved, content["history"]])]


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from leaves(part)
    else:
        yield value if isinstance(value, torch.Tensor) else torch.tensor(0 if value is None else value)


def assert_same(one, other):
    a, b = state(one), state(other)
    assert len(a) == len(b) > 10
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert (one / "history.json").read_bytes() == (other / "history.json").read_bytes()


def test_each_pair_of_values_occurs():
    assert len(COMBINATIONS) < 40
    for (a, xs), (b, ys) in itertools.combinations(TABLE.items(), 2):
        for x, y in itertools.product(xs, ys):
            assert not allowed({a: x, b: y}) or any(c[a] == x and c[b] == y for c in COMBINATIONS), (
                a,
                x,
                b,
                y,
            )


@pytest.mark.parametrize("number", range(len(COMBINATIONS)))
def test_resumed_is_uninterrupted(number, data, tmp_path, monkeypatch, stop_in_step, capsys):
    arguments = ["train", "--dataset", data, "--device", "cpu", *typed(COMBINATIONS[number])]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*arguments, "--out", whole) == 0, capsys.readouterr().err
    stop_in_step(random.Random(number).randrange(1, 8))
    code = run(*arguments, "--out", parts)
    monkeypatch.undo()
    if code == 130:
        assert run("train", "--out", parts, "--resume") == 0, capsys.readouterr().err
    else:  # patience had ended it before
        assert code == 0 and "--patience" in arguments
    assert_same(whole, parts)


def test_warm_up_that_is_over(data, tmp_path, monkeypatch, stop_in_step):
    """The weight of the divergence is 1 after the warm-up, in a resumed run as well."""
    steps = ["--batch-size", 10, "--epochs", 8]  # 4 in an epoch, of 32 the first 6 warm up
    arguments = ["train", "--dataset", data, "--device", "cpu", "--warm-up", "0.2", *steps]
    assert run(*arguments, "--out", tmp_path / "whole") == 0
    stop_in_step(18)
    assert run(*arguments, "--out", tmp_path / "parts") == 130
    monkeypatch.undo()
    assert run("train", "--out", tmp_path / "parts", "--resume") == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_more_epochs_is_a_longer_run(data, tmp_path):
    arguments = ["train", "--dataset", data, "--device", "cpu", "--hidden-dim", 4]
    assert run(*arguments, "--epochs", 5, "--out", tmp_path / "whole") == 0
    assert run(*arguments, "--epochs", 2, "--out", tmp_path / "parts") == 0
    assert run("train", "--out", tmp_path / "parts", "--resume", "--epochs", 5) == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_an_empty_resume_changes_nothing(data, tmp_path):
    out = tmp_path / "run"
    assert run("train", "--dataset", data, "--out", out, "--device", "cpu", "--epochs", 2) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for _ in range(2):
        assert run("train", "--out", out, "--resume") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before  # the seconds, too


def test_patience_keeps_the_best(data, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [
        "--dataset",
        data,
        "--device",
        "cpu",
        "--epochs",
        60,
        "--lr",
        0.05,
        "--patience",
        3,
        "--hidden-dim",
        20,
    ]
    assert run("train", "--out", out, *arguments) == 0
    curve = run_folder.read_history(out)["validation"]
    best = max(range(len(curve)), key=curve.__getitem__)
    assert len(curve) == best + 1 + 3 < 60
    assert f"model.pt is the model of the best epoch, {best + 1}: " in capsys.readouterr().out
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    saved = torch.load(out / "model.pt", weights_only=True)["parameters"]
    assert not all(torch.equal(content["model"][name], saved[name]) for name in saved)  # the last is another
    assert run("train", "--out", out, "--resume") == 0 and run_folder.read_history(out)["validation"] == curve


# --- folders of the first edition


def test_a_finished_run_of_the_first_edition(tmp_path, capsys):
    old = Path(shutil.copytree(FIRST_EDITION / "run", tmp_path / "run"))
    for command in ("evaluate", "plot"):
        assert run(command, old, *(["--num-samples", 100] if command == "evaluate" else [])) == 0
    assert run("sample", old) == 0
    epochs = len(run_folder.read_history(old)["train"])
    assert run("train", "--out", old, "--resume", "--epochs", epochs + 1) == 0, capsys.readouterr().err
    assert len(run_folder.read_history(old)["train"]) == epochs + 1
    assert json.loads((old / "config.json").read_text())["options"]["patience"] is None  # a later option


def test_a_stopped_run_of_the_first_edition(tmp_path, capsys):
    """It had no model.pt before its last epoch, and a warm-up and a rate that falls."""
    old = Path(shutil.copytree(FIRST_EDITION / "stopped", tmp_path / "run"))
    assert run("evaluate", old, "--num-samples", 100) == 0, capsys.readouterr().err
    settings = json.loads((old / "config.json").read_text())["options"]
    assert run("train", "--out", old, "--resume") == 0, capsys.readouterr().err
    again = [
        part
        for name, value in settings.items()
        if value not in (None, False)
        for part in (options.flag(name), ",".join(map(str, value)) if isinstance(value, list) else value)
    ]
    assert run("train", "--out", tmp_path / "whole", *again) == 0
    # the first half was made by the first edition's kernel of the likelihood, which rounds otherwise
    resumed, whole = (run_folder.read_history(path) for path in (old, tmp_path / "whole"))
    assert resumed.keys() == whole.keys()
    for name in whole:
        assert resumed[name] == pytest.approx(whole[name], rel=1e-5)
