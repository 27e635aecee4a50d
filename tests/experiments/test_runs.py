"""Runs that are stopped and continued, the results files and the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vaetut import VAE, load
from vaetut.experiments import (
    decode_picture,
    figure2,
    figure3,
    figure4,
    kl_per_dimension,
    manifold,
    read_json,
)
from vaetut.experiments.__main__ import main
from vaetut.experiments.figure4 import encode_picture
from vaetut.experiments.runs import checkpoints, write_json

SMALL: dict[str, Any] = {"latent_dims": [2, 3], "hidden_dim": 10, "trial_samples": 500}


def numbers(made: dict[str, Any]) -> Any:
    """The curves without times, which differ."""
    return [
        [{name: value for name, value in point.items() if "seconds" not in name} for point in curve["points"]]
        for curve in made["curves"]
    ]


def test_a_run_that_is_stopped_after_each_point_gives_the_same_curves(tmp_path: Path) -> None:
    whole = figure2.run("digits", samples=21_500, **SMALL)
    for _ in range(20):
        pieces = figure2.run("digits", samples=21_500, minutes=0, state_dir=tmp_path, **SMALL)
        if numbers(pieces) == numbers(whole):
            break
    else:
        pytest.fail("the pieces do not add up to the whole")
    assert [curve["learning_rate"] for curve in pieces["curves"]] == [
        curve["learning_rate"] for curve in whole["curves"]
    ]


def test_a_run_can_be_taken_further_and_grows_on_all_curves(tmp_path: Path) -> None:
    figure2.run("digits", samples=10_000, state_dir=tmp_path, **SMALL)
    made = figure2.run("digits", samples=14_700, state_dir=tmp_path, **SMALL)
    assert [[point["samples"] for point in curve["points"]] for curve in made["curves"]] == [
        [10_000, 14_700]
    ] * 4


def test_the_state_of_other_settings_is_refused_and_left_alone(tmp_path: Path) -> None:
    figure2.run("digits", samples=10_000, state_dir=tmp_path, **SMALL)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="hidden_dim"):
        figure2.run("digits", samples=10_000, state_dir=tmp_path, **{**SMALL, "hidden_dim": 11})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_results_file_says_what_was_run(tmp_path: Path) -> None:
    made = figure2.run("digits", samples=10_000, results_dir=tmp_path, command="a command", **SMALL)
    read = read_json(tmp_path / "figure2-digits.json")
    assert read == json.loads(json.dumps(made))
    assert read["command"] == "a command" and read["seed"] == 0 and read["machine"].endswith("CPU cores")
    assert set(read["versions"]) == {"python", "torch", "vaetut"}
    for curve in read["curves"]:
        assert curve["trials"].keys() == {"0.01", "0.02", "0.1"}
        assert curve["points"][-1].keys() == {
            "samples",
            "train",
            "test",
            "kl",
            "seconds",
            "cpu_seconds",
        }
    assert str(tmp_path) not in (tmp_path / "figure2-digits.json").read_text()


def test_a_results_file_is_replaced_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1} and [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_checkpoints_are_even_on_a_log_axis() -> None:
    points = checkpoints(1_000_000)
    assert points[0] == 10_000 and points[-1] == 1_000_000 and len(points) == 13
    assert all(point % 100 == 0 for point in points)
    assert checkpoints(5000) == [5000]


def test_figure_3_has_three_algorithms() -> None:
    made = figure3.run(
        "digits",
        samples=10_000,
        train_sizes=[200],
        latent_dim=2,
        hidden_dim=20,
        trial_samples=500,
        evaluated=20,
    )
    assert [curve["method"] for curve in made["curves"]] == ["AEVB", "wake-sleep", "MCEM"]
    assert all(-64 < curve["points"][-1]["test"] < -15 for curve in made["curves"])


def test_monte_carlo_em_with_each_rate(tmp_path: Path) -> None:
    small: dict[str, Any] = {"train_sizes": [200], "latent_dim": 2, "hidden_dim": 10, "evaluated": 20}
    made = figure3.run_rates("digits", samples=10_000, state_dir=tmp_path, **small)
    assert [curve["learning_rate"] for curve in made["curves"]] == [0.01, 0.02, 0.1]
    assert len({curve["points"][-1]["train"] for curve in made["curves"]}) == 3
    again = figure3.run_rates("digits", samples=10_000, state_dir=tmp_path, **small)
    assert numbers(again) == numbers(made)


def test_figure_4_also_draws_from_the_models_of_figure_2(tmp_path: Path) -> None:
    small: dict[str, Any] = {"hidden_dim": 10, "state_dir": tmp_path}
    figure2.run("digits", samples=10_000, latent_dims=[3], methods=["AEVB"], trial_samples=500, **small)
    made = figure4.run("digits", samples=10_000, latent_dims=[3, 5], **small)
    assert [row["latent_dim"] for row in made["random_samples"]] == [2, 3]
    assert decode_picture(made["random_samples"][1]["picture"]).shape == (16, 80)
    assert len(made["projection"]["z_2"]) == 300


def test_the_manifold_is_laid_out_by_quantiles() -> None:
    torch.manual_seed(0)
    model = VAE(64, 2, 10).double()
    codes = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(4) + 0.5).double() / 4)
    images = manifold(model, 4)
    expected = model.likelihood(torch.stack([codes[1], codes[2]])).mean
    torch.testing.assert_close(images[4 + 2], expected)
    with pytest.raises(ValueError, match="2 latent dimensions"):
        manifold(VAE(64, 3, 10))


def test_the_projection_holds_the_means_of_the_codes() -> None:
    torch.manual_seed(0)
    images, model = load("digits"), VAE(64, 2, 10)
    made = figure4.projection(model, images, 30)
    assert made["labels"] == images.test_labels[:30].tolist()
    expected = model.encode((images.test[:30] >= 0.5).float()).mean
    torch.testing.assert_close(torch.tensor([made["z_1"], made["z_2"]]).mT, expected, atol=0.006, rtol=0)
    assert len(figure4.projection(model, images, 10_000)["z_1"]) == 300


def test_a_picture_comes_back_with_each_image_in_its_place() -> None:
    images = load("digits").test[:6]
    picture = decode_picture(encode_picture(images, (8, 8), columns=3))
    assert picture.shape == (16, 24)
    for i, image in enumerate(images):
        row, column = divmod(i, 3)
        tile = torch.from_numpy(picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8])
        assert (1 - tile.flatten() - image).abs().max() < 0.5 / 15 + 1e-6


def test_the_divergence_per_dimension_adds_up() -> None:
    torch.manual_seed(0)
    model = VAE(64, 5, 10)
    q = model.encode(torch.rand(20, 64))
    total = torch.distributions.kl_divergence(q, model.prior).mean()
    torch.testing.assert_close(kl_per_dimension(q).sum(), total)


def test_the_command_line_runs_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--results", str(tmp_path), "--state", str(tmp_path / "state")]
    command = ["figure4", "--data", "digits", "--samples", "1e4", "--seed", "3", *folders]
    assert main(command) == 0
    assert "figure4-digits.json" in capsys.readouterr().out
    made = read_json(tmp_path / "figure4-digits.json")
    assert made is not None
    assert made["command"] == "python -m vaetut.experiments figure4 --data digits --samples 10000 --seed 3"
    assert main([*command[:5], "--seed", "4", *folders]) == 1  # the state is that of seed 3
    assert "seed" in capsys.readouterr().err


def test_processes_that_share_the_curves_give_those_of_one(tmp_path: Path) -> None:
    few: dict[str, Any] = {"samples": 14_700, **SMALL}
    whole = figure2.run("digits", **few)
    shared = figure2.run("digits", jobs=2, state_dir=tmp_path, **few)
    assert numbers(shared) == numbers(whole)
    assert [curve["trials"] for curve in shared["curves"]] == [curve["trials"] for curve in whole["curves"]]
    # and this process goes on from what they have left
    assert len(numbers(figure2.run("digits", **few | {"samples": 21_500}, state_dir=tmp_path))[0]) == 3


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(TypeError, match="hidden_dims"):
        figure2.run("digits", hidden_dims=3)


@pytest.mark.parametrize("figure", [figure3, figure4])
def test_a_device_that_a_figure_cannot_use_is_refused(figure: Any) -> None:
    with pytest.raises(ValueError, match="device must be 'cpu'"):
        figure.run("digits", samples=10_000, device="cuda")


def test_a_rate_can_be_tried_for_the_whole_run() -> None:
    small: dict[str, Any] = {"train_sizes": [200], "hidden_dim": 10, "evaluated": 20, "methods": ["AEVB"]}
    made = figure3.run("digits", samples=10_000, latent_dim=2, **small)
    (curve,) = made["curves"]
    assert made["trial_samples"] == 10_000
    best = max(curve["trials"], key=lambda rate: curve["trials"][rate])
    assert curve["learning_rate"] == float(best)
    assert curve["trials"][best] == pytest.approx(curve["points"][-1]["train"], abs=0.006)


def test_jobs_on_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    figure2.run("digits", samples=10_000, trial_samples=500, state_dir=state)  # without the long trials
    folders = ["--results", str(tmp_path), "--state", str(state)]
    command = ["figure2", "--data", "digits", "--samples", "14700", "--jobs", "2", *folders]
    assert main(command) == 0
    out = capfd.readouterr().out
    made = read_json(tmp_path / "figure2-digits.json")
    assert made is not None and made["threads"] == 1
    assert made["command"] == "python -m vaetut.experiments figure2 --data digits --samples 14700"
    assert [curve["points"][-1]["samples"] for curve in made["curves"]] == [14_700] * 10
    assert out.count("wrote") == 1 and out.count("samples 14,700") == 10
    assert main([*command, "--seed", "1"]) == 1  # the state is that of seed 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["figure9"],
        ["figure2", "--samples", "12.5"],
        ["figure2", "--data", "cats"],
        ["figure2", "--jobs", "0"],
    ],
)
def test_mistakes_on_the_command_line_are_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert arguments[-1] in capsys.readouterr().err
