"""`vaetut train`: what its options come to, and the run in its folder."""

import time
from pathlib import Path
from typing import Any

import torch

from vaetut.aevb import train as fit
from vaetut.cli import run_folder
from vaetut.cli.recipes import BOUNDS, DEFAULTS, RECIPES, Schedule, initialize
from vaetut.cli.run_folder import CHECKPOINT, CONFIG, HISTORY, MODEL, Saved, is_first_process, versions
from vaetut.data import load
from vaetut.models import VAE

_MODEL_OPTIONS = ("latent_dim", "hidden_dim", "likelihood", "activation")
_MATMUL = ("highest", "high", "medium")

Options = dict[str, Any]


def train(options: Options) -> Options:
    """Fit a model and write its folder."""
    folder, resume = options["out"], options.get("resume", False)
    given = {name: value for name, value in options.items() if name in DEFAULTS or name == "recipe"}
    settings = _resumed(folder, given) if resume else _settings(given)
    first = is_first_process()
    if first and not resume:
        _check_free(folder, options.get("overwrite", False))
    data = load(settings["dataset"])
    goes_on = resume and (folder / CHECKPOINT).exists()
    model, arguments = _model(settings, data.train.shape[1], None if goes_on else settings["init"])
    how = _objective(settings, len(data.train)) | {"binarize": _binarize(settings)} | _machine(settings)

    before, new, replaced = 0.0, not folder.exists(), {}
    if resume:
        before = run_folder.read_json(folder / CONFIG)["seconds"]
    elif first:
        folder.mkdir(parents=True, exist_ok=True)
        files = (folder / name for name in (CONFIG, MODEL, HISTORY, CHECKPOINT))
        replaced = {file: file.read_bytes() for file in files if file.exists()}
        for file in replaced:
            file.unlink()
        _write_config(folder, settings, 0.0)
    if "fabric" in how:
        how["fabric"].barrier()
    start = time.perf_counter()
    try:
        history = fit(
            model,
            data,
            epochs=settings["epochs"],
            batch_size=settings["batch_size"],
            num_samples=settings["num_samples"],
            seed=settings["seed"],
            checkpoint=folder / CHECKPOINT,
            resume=resume,
            compile=settings["compile"],
            **how,
        )
    except KeyboardInterrupt:
        if first:
            _write_config(folder, settings, before + time.perf_counter() - start)
        raise KeyboardInterrupt(f"stopped; to go on: vaetut train --out {folder} --resume") from None
    except Exception:
        if first and not resume and not (folder / CHECKPOINT).exists():
            # There is nothing to go on from: leave all as it was.
            (folder / CONFIG).unlink()
            for file, content in replaced.items():
                file.write_bytes(content)
            if new:
                folder.rmdir()
        raise
    if not first:
        return {"text": ""}
    seconds = before + time.perf_counter() - start
    run_folder.save_model(folder, Saved(model, arguments, data.name, data.image_shape, how["binarize"]))
    run_folder.write_json(folder / HISTORY, history.to_dict())
    _write_config(folder, settings, seconds)
    last = {name: curve[-1] for name, curve in history.to_dict().items()}
    text = (
        f"{folder}: {data.name}, {len(history.train)} epochs, {seconds:.1f} s\n"
        f"bound, nats per image: training {last['train']:.2f}, test {last['validation']:.2f}\n"
        f"next: vaetut evaluate {folder}"
    )
    return {"text": text, "out": str(folder), "seconds": seconds, **last, "options": _plain(settings)}


def _settings(given: Options) -> Options:
    """All options of a new run: what is given, before the recipe, before the defaults."""
    recipe = dict(RECIPES.get(given.get("recipe", ""), {}))
    if given.get("init") is not None or given.get("bound", "sgvb_b") != "sgvb_b":
        recipe.pop("warm_up", None)  # it is for the beginning, and for the bound that has a divergence
    settings = DEFAULTS | recipe | given
    if settings["init"] is not None:
        saved = run_folder.load_model(settings["init"])
        theirs = {name: saved.arguments[name] for name in _MODEL_OPTIONS} | {"dataset": saved.dataset}
        theirs["hidden_dim"] = tuple(theirs["hidden_dim"])
        _agree(given, theirs, f"the model in {settings['init']} has")
        settings |= theirs
    return settings


def _resumed(folder: Path, given: Options) -> Options:
    """All options of a run that goes on."""
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} holds no run to go on with")
    settings: Options = run_folder.read_json(folder / CONFIG)["options"]
    settings["hidden_dim"] = tuple(settings["hidden_dim"])
    settings["init"] = settings["init"] and Path(settings["init"])
    free = {"device"} if settings["lr_decay"] or settings["warm_up"] else {"device", "epochs"}
    fixed = {name: value for name, value in settings.items() if name not in free}
    _agree(given, fixed, f"the run in {folder} has")
    return settings | given


def _agree(given: Options, theirs: Options, whose: str) -> None:
    for name, value in given.items():
        if name in theirs and value != theirs[name]:
            theirs_is = "the default" if theirs[name] is None else theirs[name]
            raise ValueError(f"--{name.replace('_', '-')} cannot be {value}: {whose} {theirs_is}")


def _check_free(folder: Path, overwrite: bool) -> None:
    """Whether a new run may be written there."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose another --out")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / CONFIG).is_file():
            raise FileExistsError(f"{folder} holds other files; choose another --out")
        if not overwrite:
            raise FileExistsError(
                f"{folder} holds a run; --resume goes on with it, --overwrite replaces it, or choose another --out"
            )


def _model(settings: Options, data_dim: int, init: Path | None) -> tuple[VAE, Options]:
    """The model with its first parameters, and the arguments that make it."""
    arguments = {"data_dim": data_dim} | {name: settings[name] for name in _MODEL_OPTIONS}
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(settings["seed"])
        model = VAE(**arguments)
        initialize(model, settings["initialization"])
    if init is not None:
        model.load_state_dict(run_folder.load_model(init).model.state_dict())
    return model, arguments


def _objective(settings: Options, number: int) -> Options:
    """The arguments of `vaetut.train` that say what to ascend and how, for ``number`` images."""
    bound, decay, warm_up = settings["bound"], settings["lr_decay"], settings["warm_up"]
    if decay == warm_up == 0:
        return {"bound": BOUNDS[bound], "optimizer": settings["optimizer"], "learning_rate": settings["lr"]}
    if warm_up and bound != "sgvb_b":
        raise ValueError(
            f"--warm-up must be 0 for --bound {bound}: only sgvb_b has the divergence as a term of its own"
        )
    steps = settings["epochs"] * -(-number // settings["batch_size"])
    schedule = Schedule(settings["optimizer"], settings["lr"], decay, warm_up, steps)
    return {"bound": schedule.bound if warm_up else BOUNDS[bound], "optimizer": schedule.optimizer}


def _binarize(settings: Options) -> str:
    if settings["binarize"] != "auto":
        return str(settings["binarize"])
    return "dynamic" if settings["likelihood"] == "bernoulli" else "none"


def _machine(settings: Options) -> Options:
    """The arguments of `vaetut.train` that say where and how it computes."""
    precision = settings["precision"]
    if precision in _MATMUL and settings["devices"] is None and settings["strategy"] is None:
        return {"device": settings["device"], "precision": precision}
    try:
        from lightning_fabric import Fabric
    except ModuleNotFoundError:
        raise ValueError(
            "--devices, --strategy and mixed --precision need Lightning Fabric: pip install 'vaetut[scale]'"
        ) from None
    fabric = Fabric(
        accelerator=settings["device"],
        devices=settings["devices"] or 1,
        strategy=settings["strategy"] or "auto",
        precision=None if precision in _MATMUL else precision,
    )
    fabric.launch()
    return {"fabric": fabric, "precision": precision if precision in _MATMUL else "highest"}


def _write_config(folder: Path, settings: Options, seconds: float) -> None:
    content = {"options": _plain(settings), "versions": versions(), "seconds": seconds}
    run_folder.write_json(folder / CONFIG, content)


def _plain(settings: Options) -> Options:
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
