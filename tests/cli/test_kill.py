"""SIGKILL at any file event leaves the old run or the new one, and what is left can be gone on with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vaetut.aevb import checkpoint as checkpoints
from vaetut.cli import main, run_folder

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

# In a process of its own, which trains nothing itself: each child is killed at its n-th event in the folder.
KILLER = """
import os, shutil, signal, sys
from pathlib import Path
import torch._dynamo  # what the first optimizer imports
import vaetut.cli.train
from vaetut.cli import main

base, work, arguments = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
WATCHED = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate"}

def child(n, folder):
    seen = 0
    def hook(event, values):
        nonlocal seen
        if event not in WATCHED or not values or not isinstance(values[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and not (values[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if str(folder) in os.fsdecode(values[0]):
            seen += 1
            if seen == n:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    os._exit(main([*arguments, "--out", str(folder)]))

n = 0
while True:
    n += 1
    folder = work / f"at-{n:03}"
    if base.is_dir():
        shutil.copytree(base, folder)
    process = os.fork()
    if process == 0:
        child(n, folder)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code != -signal.SIGKILL:
        print(n, code)
        break
"""
SMALL = ["--device", "cpu", "--hidden-dim", "3"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The options of a run that takes milliseconds."""
    path = tmp_path_factory.mktemp("data") / "tiny.npy"
    np.save(path, np.random.default_rng(0).random((12, 4)).astype(np.float32))
    return ["--dataset", str(path), *SMALL]


def run(*arguments):
    return main([str(argument) for argument in arguments])


def kill_everywhere(tmp_path, base, arguments):
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-c", KILLER, str(base), str(work), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    number, code = map(int, done.stdout.split())
    assert code == 0 and number > 30  # the last was not killed, and there were many events
    return [
        path for path in sorted(work.iterdir()) if path.name != f"at-{number:03}"
    ], work / f"at-{number:03}"


def parameters(folder):
    return torch.cat([p.detach().flatten() for p in run_folder.open_model(folder).model.parameters()])


def assert_whole(folder):
    """All four files are of one run and one epoch."""
    saved, config = run_folder.open_model(folder), run_folder.read_config(folder)
    content = checkpoints.read(folder / "checkpoint.pt")
    assert saved.model.latent_dim == config.settings.latent_dim == content["arguments"]["latent_dim"]
    assert all(torch.equal(content["model"][name], p) for name, p in saved.model.state_dict().items())
    assert run_folder.read_history(folder) == {k: content["history"][k] for k in ("train", "validation")}
    return saved.model.latent_dim


def test_overwrite(small, tmp_path):
    old = tmp_path / "old"
    assert run("train", "--out", old, *small, "--latent-dim", 2, "--epochs", 1) == 0
    assert run("plot", old) == 0
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    arguments = ["train", *small, "--latent-dim", 3, "--epochs", 1]
    folders, finished = kill_everywhere(tmp_path, old, [*arguments, "--overwrite"])
    assert assert_whole(finished) == 3 and len(list(finished.iterdir())) == 4
    kinds = []
    for folder in folders:
        raw = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        kinds.append(assert_whole(folder))
        if kinds[-1] == 2:
            assert {name: raw[name] for name in before} == before  # nothing of the old run is touched
        else:
            assert not {path.name for path in folder.iterdir()} & set(run_folder.PICTURES)
        if len(kinds) % 3 == 0:
            assert run("train", "--out", folder, "--resume") == 0
            assert torch.equal(parameters(folder), parameters(finished if kinds[-1] == 3 else old))
            assert {path.name for path in folder.iterdir()} - set(run_folder.PICTURES) == set(
                run_folder.FILES
            )
    assert kinds == sorted(kinds) and set(kinds) == {2, 3}


def test_new_run(small, tmp_path):
    arguments = ["train", *small, "--latent-dim", 2, "--epochs", 1]
    folders, finished = kill_everywhere(tmp_path, tmp_path / "none", arguments)
    for folder in folders[::2]:
        if (folder / "config.json").exists():
            assert run("train", "--out", folder, "--resume") == 0
        else:  # killed before it had begun: the folder is free
            assert run(*arguments, "--out", folder) == 0
        assert_whole(folder)
        assert torch.equal(parameters(folder), parameters(finished))
        assert {path.name for path in folder.iterdir()} == set(run_folder.FILES)


def test_resume(small, tmp_path):
    old = tmp_path / "old"
    assert run("train", "--out", old, *small, "--latent-dim", 2, "--epochs", 1) == 0
    folders, finished = kill_everywhere(tmp_path, old, ["train", "--resume", "--epochs", 2])
    for folder in folders:
        assert_whole(folder)
    for folder in folders[::3]:
        assert run("train", "--out", folder, "--resume", "--epochs", 2) == 0
        assert torch.equal(parameters(folder), parameters(finished))


def test_what_a_killed_download_or_write_left_is_removed(small, tmp_path):
    out = tmp_path / "run"
    assert run("train", "--out", out, *small, "--epochs", 1) == 0
    (out / ".config.json.host-1-abc.part").write_text("half")
    shutil.copytree(out, out / ".new")
    assert run("train", "--out", out, "--resume", "--epochs", 2) == 0
    assert {path.name for path in out.iterdir()} == set(run_folder.FILES)
