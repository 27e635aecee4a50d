"""Any console, any launcher, any signal: the command prints or says in one line why it does not."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaetut
from vaetut import VAE
from vaetut.cli import lock, main, run_folder
from vaetut.cli.arguments import new_settings
from vaetut.data import own

QUICK = ["--device", "cpu", "--hidden-dim", "3", "--epochs", "1"]


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny.npy"
    np.save(path, np.random.default_rng(0).random((30, 4)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "ein Lauf für später"
    assert run("train", "--dataset", data, "--out", path, *QUICK) == 0
    return path


class Console(io.TextIOWrapper):
    """A stream with the encoding of a console; ``text`` is what was printed."""

    def __init__(self, encoding):
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding)

    @property
    def text(self):
        self.flush()
        return self.bytes.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_consoles(trained, monkeypatch, encoding):
    monkeypatch.setattr(sys, "stdout", out := Console(encoding))
    monkeypatch.setattr(sys, "stderr", Console(encoding))
    for arguments in (["train", "--help"], ["--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
    assert "--hidden-dim" in out.text
    assert run("evaluate", trained, "--num-samples", 4, "--iwae-samples", 2) == 0
    assert ("+- draws" if encoding == "ascii" else "± draws") in out.text
    monkeypatch.setattr(sys, "stdout", out := Console(encoding))
    assert run("evaluate", trained, "--num-samples", 4, "--iwae-samples", 2, "--json") == 0
    assert json.loads(out.text)["folder"] == str(trained)


def test_without_a_standard_error(data, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as pythonw has it
    assert run("train", "--dataset", data, "--out", tmp_path / "run", *QUICK) == 0
    assert run("evaluate", tmp_path / "run", "--num-samples", 4, "--iwae-samples", 2) == 0
    assert run("evaluate", tmp_path / "nothing") == 2


full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@full_disk
@pytest.mark.parametrize("arguments", [[], ["--version"], ["train", "--help"]])
def test_a_full_disk_behind_the_output(capsys, monkeypatch, arguments):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with os.fdopen(descriptor, "w", closefd=True) as full:
        monkeypatch.setattr(sys, "stdout", full)
        try:
            assert main(arguments) == 1
        except SystemExit as end:
            assert end.code == 1
    error = capsys.readouterr().err
    assert "cannot be written to the standard output" in error and error.count("\n") == 1


@full_disk
def test_a_full_disk_behind_the_log(data, tmp_path, monkeypatch):
    """The training goes on, and a wrong option keeps its status."""
    with io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert run("train", "--dataset", data, "--out", tmp_path / "run", *QUICK) == 0
        with pytest.raises(SystemExit, match="2"):
            main(["train", "--wings"])


def test_a_closed_output_is_an_error(trained, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as after >&-
    assert run("evaluate", trained, "--num-samples", 4, "--iwae-samples", 2) == 1
    assert "the standard output: it is closed" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="needs file descriptors that can be inherited closed")
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path):
    """A library that prints to the number 2 must not write into the checkpoint."""
    code = (
        "import os; from vaetut.cli import main; main([]); "
        "handle = os.open({!r}, os.O_CREAT | os.O_WRONLY); os.write(2, b'a warning of a library'); assert handle > 2"
    )
    file = tmp_path / "file"
    command = [sys.executable, "-c", code.format(str(file))]
    done = subprocess.run(["/bin/sh", "-c", '"$@" 2>&- <&-', "sh", *command], stdout=subprocess.DEVNULL)
    assert done.returncode == 0 and file.read_bytes() == b""


def test_a_reader_that_has_enough(capsys, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main([]) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error", [RuntimeError("DefaultCPUAllocator: can't allocate memory: x\ny"), MemoryError()]
)
def test_out_of_memory(trained, capsys, monkeypatch, error):
    def fail(self, x):
        raise error

    monkeypatch.setattr(VAE, "encode", fail)
    assert run("evaluate", trained, "--num-samples", 4, "--iwae-samples", 2) == 1
    message = capsys.readouterr().err
    assert "out of memory" in message and message.count("\n") == 1


@pytest.mark.parametrize("sizes", [["--hidden-dim", 3 * 10**18], ["--num-samples", 10**12]])
def test_a_model_or_a_step_larger_than_any_memory(data, tmp_path, capsys, sizes):
    out = tmp_path / "run"
    assert run("train", "--dataset", data, "--out", out, *QUICK, *sizes) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 2 and error[1].startswith("vaetut: error: out of memory") and not out.exists()


def test_a_number_larger_than_any_size(capsys):
    with pytest.raises(SystemExit, match="2"):
        run("train", "--out", "x", "--hidden-dim", 10**30)
    assert "--hidden-dim" in capsys.readouterr().err


def test_a_limit_on_the_size_of_files(trained, tmp_path, capsys, monkeypatch):
    """The error names the file, not that of the staging folder, and the run stays what it was."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        status = run("train", "--out", out, "--resume", "--epochs", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert status == 1
    assert (
        capsys.readouterr().err.splitlines()[-1] == f"vaetut: error: {out / 'checkpoint.pt'}: File too large"
    )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run("train", "--out", out, "--resume", "--epochs", 2) == 0


def test_a_full_disk_under_the_lock(tmp_path, monkeypatch):
    def full(handle, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with lock.locked(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not list(tmp_path.iterdir())


def test_other_runtime_errors_are_defects(trained, monkeypatch):
    def fail(self, x):
        raise RuntimeError("a defect")

    monkeypatch.setattr(VAE, "encode", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        run("evaluate", trained, "--num-samples", 4, "--iwae-samples", 2)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_without_devices_is_a_run_like_any(data, tmp_path, capsys, monkeypatch, rank):
    monkeypatch.setenv("LOCAL_RANK", rank)
    out = tmp_path / "run"
    assert run("train", "--dataset", data, "--out", out, *QUICK) == 0
    assert "next: vaetut evaluate" in capsys.readouterr().out and (out / "model.pt").exists()
    assert run("evaluate", tmp_path / "nothing") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_home_is_expanded_once(data, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run("train", "--dataset", data, "--out=~/runs/x", *QUICK) == 0
    assert {path.name for path in (tmp_path / "runs" / "x").iterdir()} == set(run_folder.FILES)
    assert not (tmp_path / "~").exists()


def test_two_runs_in_one_folder(data, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    with lock.locked(out):
        assert run("train", "--dataset", data, "--out", out, *QUICK) == 1
        error = capsys.readouterr().err
        assert "is in use: process" in error and f"process {os.getpid()} on " in error
    assert not list(out.iterdir())
    assert run("train", "--dataset", data, "--out", out, *QUICK) == 0


def test_a_lock_is_held_by_one(tmp_path):
    """Threads that ask all the time: the lock is never held twice, though its file comes and goes."""
    inside, most, errors = 0, 0, []

    def ask():
        nonlocal inside, most
        for _ in range(100):
            try:
                with lock.locked(tmp_path):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0)
                    inside -= 1
            except lock.InUse:
                pass
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and not errors and not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP] if os.name == "posix" else [])
def test_a_signal_cleans_up(data, tmp_path, capsys, monkeypatch, number):
    ignored = signal.signal(number, signal.SIG_DFL)  # nohup has SIGHUP ignored, and so would vaetut
    before, encode = signal.getsignal(number), VAE.encode
    out = tmp_path / "run"

    def killed(self, x):
        if torch.is_grad_enabled():
            (out / ".model.pt.half.part").write_text("half")
            os.kill(os.getpid(), number)
        return encode(self, x)

    monkeypatch.setattr(VAE, "encode", killed)
    assert run("train", "--dataset", data, "--out", out, *QUICK) == 128 + number
    assert {path.name for path in out.iterdir()} == {"config.json"} and signal.getsignal(number) == before
    monkeypatch.undo()
    assert run("train", "--out", out, "--resume") == 0
    signal.signal(number, ignored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "--recipe", "paper"], "--recipe cannot be given with --resume"),
        (["--resume", "--overwrite"], "--resume and --overwrite cannot both be given"),
        (["--overwrite", "--image-size", "8"], "--image-size is for your own data"),
        (
            ["--overwrite", "--device", "meta"],
            "--device must be auto or a device of this machine, got 'meta'",
        ),
        (["--overwrite", "--drop-last", "--batch-size", "5000"], "--drop-last leaves no step"),
    ],
)
def test_conflicting_options(trained, capsys, arguments, message):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    assert run("train", "--out", trained, *arguments) == 2
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_a_seed_too_long(capsys):
    with pytest.raises(SystemExit, match="2"):
        run("train", "--out", "x", "--seed", 10**23)
    assert "an integer from -2**63 to 2**64 - 1" in capsys.readouterr().err


def test_paths_with_spaces_are_quoted(trained, capsys):
    assert run("train", "--out", trained) == 2
    assert f'"{trained}" holds a run' in capsys.readouterr().err


# --- files of another time, and models that are no more


def test_a_config_without_a_later_option(data, tmp_path):
    out = tmp_path / "run"
    assert run("train", "--dataset", data, "--out", out, *QUICK) == 0
    config = json.loads((out / "config.json").read_text())
    for name in ("patience", "drop_last"):
        del config["options"][name]
    (out / "config.json").write_text(json.dumps(config))
    assert run("train", "--out", out, "--resume", "--epochs", 2) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("seconds"), "it lacks 'seconds'"),
        (lambda c: c.pop("options"), "it lacks 'options'"),
        (lambda c: c["options"].update(wings=2), "it has options of a later version: wings"),
    ],
)
def test_a_config_that_cannot_be_used(data, tmp_path, capsys, change, message):
    out = tmp_path / "run"
    assert run("train", "--dataset", data, "--out", out, *QUICK) == 0
    config = json.loads((out / "config.json").read_text())
    change(config)
    (out / "config.json").write_text(json.dumps(config))
    assert run("train", "--out", out, "--resume") == 2
    error = capsys.readouterr().err
    assert f"{out / 'config.json'} cannot be used: {message}" in error


def test_a_model_that_is_no_longer_usable(trained, tmp_path, capsys):
    saved = run_folder.open_model(trained)
    with torch.no_grad():
        saved.model.encoder[0].weight[0, 0] = float("nan")
    run_folder.write_model(saved.model, tmp_path / "model.pt", saved.about())
    assert run("evaluate", tmp_path, "--json") == 2
    out, err = capsys.readouterr()
    assert out == "" and "its parameters encoder.0.weight hold NaN or infinity" in err


# --- the user's own data


def test_a_folder_of_images_from_end_to_end(tmp_path, capsys):
    images = tmp_path / "digits"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 5)).astype(np.uint8)
    for i, array in enumerate(pixels):
        (images / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(images / str(i % 3) / f"{i}.png")
    out = tmp_path / "run"
    assert (
        run("train", "--dataset", images, "--out", out, "--latent-dim", 2, "--test-share", 0.25, *QUICK) == 0
    )
    log = capsys.readouterr().err.splitlines()
    assert re.search(r"40 images of 6 x 5 pixels, 3 labels.*30 for training and 10 for testing", log[0])
    assert "likelihood bernoulli, as all values are in [0, 1]" in log[0] and log[1].startswith(
        "epoch 1/1  bound -"
    )
    table = tmp_path / "each.csv"
    arguments = ["--json", "--num-samples", 20, "--iwae-samples", 10, "--per-image", table]
    assert run("evaluate", out, *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 10 and 0 <= found["active_units"] <= 2
    assert found["bound"]["value"] == pytest.approx(
        found["reconstruction"]["value"] - found["kl"]["value"], rel=1e-5
    )
    rows = np.genfromtxt(table, delimiter=",", names=True)
    assert rows["log_evidence"].mean() == pytest.approx(found["log_evidence"]["value"]) and len(rows) == 10
    assert run("plot", out) == run("sample", out) == 0
    assert run("train", "--out", out, "--resume", "--epochs", 2) == 0
    new = tmp_path / "new"
    assert run("train", "--out", new, "--init", out, "--epochs", 1, "--device", "cpu") == 0  # its data, too


@pytest.mark.parametrize("color", [False, True])
def test_data_that_stay_in_their_file(tmp_path, monkeypatch, color):
    """Read a minibatch at a time they are what they are in memory, and a resumed run is the uninterrupted one."""
    shape = (40, 3, 2, 2) if color else (40, 4, 3)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    arguments = ["--dataset", tmp_path / "x.npy", *QUICK, "--batch-size", 10, "--epochs"]
    assert run("train", "--out", tmp_path / "memory", *arguments, 3) == 0
    monkeypatch.setattr(own, "_IN_MEMORY", 10)
    assert run("train", "--out", tmp_path / "whole", *arguments, 3) == 0
    assert run("train", "--out", tmp_path / "parts", *arguments, 1) == 0
    assert run("train", "--out", tmp_path / "parts", "--resume", "--epochs", 3) == 0
    curves = [run_folder.read_history(tmp_path / name)["train"] for name in ("memory", "whole", "parts")]
    assert curves[1] == curves[2] and curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert run("evaluate", tmp_path / "parts", "--num-samples", 4, "--iwae-samples", 2) == 0
    assert run("sample", tmp_path / "parts", "--file", tmp_path / "a.pt") == 0
    assert torch.load(tmp_path / "a.pt").shape == (100, 12)


def test_numbers_that_are_no_images(tmp_path, capsys):
    values = np.random.default_rng(0).normal(size=(40, 3))
    values[:, 1] = 2
    np.savetxt(tmp_path / "t.csv", values, delimiter=",")
    out = tmp_path / "run"
    assert run("train", "--dataset", tmp_path / "t.csv", "--out", out, *QUICK) == 0
    assert "likelihood isotropic, as values from" in capsys.readouterr().err
    assert run("sample", out) == 2 and "rows of numbers, not images" in capsys.readouterr().err
    assert run("sample", out, "--file", tmp_path / "x.pt") == run("plot", out) == 0
    asked = ["--likelihood", "gaussian", "--overwrite"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        run("train", "--dataset", tmp_path / "t.csv", "--out", out, *QUICK, *asked)
    assert "vaetut: warning: 1 of 3 columns of data are constant" in capsys.readouterr().err


def test_each_option_stands_once():
    """Parser, defaults, configuration and comparison come from one class."""
    from vaetut.cli.options import Settings, from_plain

    assert from_plain(json.loads(json.dumps(Settings().plain()))) == Settings()
    assert new_settings({}, None) == Settings()


# --- Ctrl-C during the imports


def heeding_ctrl_c(command, **options):
    """Run a command as a terminal does. What is started in the background may have inherited that SIGINT is ignored."""
    default = (
        {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
    )
    return subprocess.run(command, capture_output=True, text=True, **default, **options)


@pytest.mark.skipif(os.name != "posix", reason="os.kill sends no SIGINT elsewhere")
@pytest.mark.parametrize("start", [["-m", "vaetut"], ["{bin}/vaetut"]])
def test_ctrl_c_while_torch_is_imported(tmp_path, start):
    (tmp_path / "torch").mkdir()  # found first: a torch that is interrupted, as the real one may be
    (tmp_path / "torch" / "__init__.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    raise ImportError('interrupted')\n"
    )
    (tmp_path / "vaetut").write_text("from vaetut.cli import main\nraise SystemExit(main())\n")
    command = [sys.executable, *(part.replace("{bin}", str(tmp_path)) for part in start), "--version"]
    path = os.pathsep.join([str(tmp_path), str(Path(vaetut.__file__).parents[1])])
    done = heeding_ctrl_c(command, env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "vaetut: stopped\n")


def test_importing_the_package_leaves_ctrl_c_to_other_programs():
    code = "import signal, vaetut; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert heeding_ctrl_c([sys.executable, "-c", code], check=True).stdout == "True\n"
