"""Checkpoints: a run that was stopped anywhere ends as one that was not, and no file is lost or believed blindly."""

import functools
import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys

import pytest
import torch

from vaetut.aevb import checkpoint as checkpoints
from vaetut.aevb import load_model, train
from vaetut.bounds import sgvb_a, sgvb_b
from vaetut.models import VAE


def gray(n=120, dim=6):
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(1))


def small(**options):
    torch.manual_seed(0)
    return VAE(6, 2, **{"hidden_dim": 8, **options})


def run(model, **options):
    options = {"epochs": 4, "batch_size": 50, "learning_rate": 0.01, "validation": gray(30), **options}
    return train(model, options.pop("data", gray()), **options)


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def momentum(p):
    return torch.optim.SGD(p, 0.01, momentum=0.9)


LEFT = {}


class Stop:
    """`sgvb_b` by name, but it stops the run at its ``last`` training step. It counts where no checkpoint looks."""

    def __init__(self, last, how):
        functools.update_wrapper(self, sgvb_b)
        LEFT["steps"], self.how = last, how

    def __call__(self, model, q, x, num_samples):
        if torch.is_grad_enabled():
            LEFT["steps"] -= 1
            if LEFT["steps"] == 0:
                self.how()
        return sgvb_b(model, q, x, num_samples)


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.pt"


@pytest.fixture
def kept(path):
    """A run of four epochs, of which three are done and kept."""
    run(small(), epochs=3, checkpoint=path)
    return path


# --- to the bit


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"},
        {"optimizer": "adagrad", "validation": None},
        {"optimizer": momentum, "learning_rate": None},
        {"optimizer": "sgd", "binarize": "none", "num_samples": 2},
    ],
)
@pytest.mark.parametrize("last", [1, 3, 4, 8, 12])  # three steps an epoch
def test_interrupted_is_uninterrupted(path, options, last):
    expected = small()
    history = run(expected, **options)
    model = small()
    with pytest.raises(KeyboardInterrupt):
        run(model, **options, checkpoint=path, bound=Stop(last, interrupt))
    assert path.exists() == (last > 3)
    if path.exists():
        assert checkpoints.read(path)["epoch"] == (last - 1) // 3
    again = small()
    torch.nn.init.zeros_(again.encoder[0].weight)  # what the model was does not count
    assert (
        run(again if last > 3 else small(), **options, checkpoint=path, resume=True) == history or last <= 3
    )
    if last > 3:
        assert torch.equal(parameters(again), parameters(expected))
    assert os.listdir(path.parent) == ["run.pt"]
    assert not torch.equal(parameters(model), parameters(expected))


def test_more_epochs(path):
    expected, model = small(), small()
    history = run(expected)
    run(small(), epochs=1, checkpoint=path)
    run(small(), epochs=3, checkpoint=path, resume=True)
    assert run(model, epochs=4, checkpoint=path, resume=True) == history
    assert torch.equal(parameters(model), parameters(expected))
    done = small()
    assert run(done, epochs=4, checkpoint=path, resume=True) == history  # nothing is left to do
    assert torch.equal(parameters(done), parameters(expected))
    saved = checkpoints.read(path)
    assert saved["epoch"] == 4 and saved["history"] == history.to_dict()
    assert saved["optimizer"]["state"][0]["step"] == 12


def test_a_checkpoint_changes_nothing(path):
    expected, model = small(), small()
    assert run(expected) == run(model, checkpoint=path)
    assert torch.equal(parameters(model), parameters(expected))


def test_resume_without_a_file_starts(path):
    expected, model = small(), small()
    assert run(expected) == run(model, checkpoint=str(path), resume=True)
    assert torch.equal(parameters(model), parameters(expected)) and path.exists()


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_checkpoint as t
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if {last} == 0:  # in the middle of a write: the third file is there, and has not its name yet
    replace, count = os.replace, []
    os.replace = lambda *paths: replace(*paths) if len(count) < 2 and not count.append(0) else kill()
t.run(t.small(), checkpoint={path!r}, bound=t.Stop({last}, kill))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("last, epoch", [(8, 2), (0, 2)])
def test_killed(path, last, epoch):
    """``kill -9`` in the middle of an epoch, and in the middle of a write."""
    script = SCRIPT.format(tests=os.path.dirname(__file__), last=last, path=str(path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoints.read(path)["epoch"] == epoch
    assert len(os.listdir(path.parent)) == (2 if last == 0 else 1)
    expected, model = small(), small()
    assert run(expected) == run(model, checkpoint=path, resume=True)
    assert torch.equal(parameters(model), parameters(expected))


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_stopped_while_writing(kept, monkeypatch, function, error):
    before = kept.read_bytes()

    def fail(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(error if isinstance(error, type) else OSError):
            run(small(), checkpoint=kept, resume=True)
    assert kept.read_bytes() == before and os.listdir(kept.parent) == ["run.pt"]
    expected, model = small(), small()
    assert run(expected) == run(model, checkpoint=kept, resume=True)
    assert torch.equal(parameters(model), parameters(expected))


def bad(model, q, x, num_samples):
    LEFT["steps"] = LEFT.get("steps", 0) - torch.is_grad_enabled()
    return sgvb_b(model, q, x, num_samples) * (float("nan") if LEFT["steps"] == 0 else 1)


def test_a_bound_that_is_not_finite_keeps_the_epoch_before(path):
    LEFT["steps"] = 5
    with pytest.raises(FloatingPointError, match="epoch 2, step 2"):
        run(small(), checkpoint=path, bound=bad)
    assert checkpoints.read(path)["epoch"] == 1


def test_link_and_home(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "run.pt"
    link.symlink_to(tmp_path / "disk" / "real.pt")
    run(small(), epochs=1, checkpoint=link)
    assert link.is_symlink() and checkpoints.read(tmp_path / "disk" / "real.pt")["epoch"] == 1
    monkeypatch.setenv("HOME", str(tmp_path))
    run(small(), epochs=1, checkpoint="~/other.pt")
    assert checkpoints.read(tmp_path / "other.pt")["epoch"] == 1


# --- what is refused


def test_an_existing_file_is_not_overwritten(kept):
    before, model = kept.read_bytes(), small()
    with pytest.raises(FileExistsError, match=r"run\.pt exists, and is not overwritten: use resume=True"):
        run(model, checkpoint=kept)
    assert kept.read_bytes() == before and torch.equal(parameters(model), parameters(small()))


def nothing(model, q, x, num_samples):
    return sgvb_b(model, q, x, num_samples)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 60}, "batch_size was 50, is now 60"),
        ({"num_samples": 2}, "num_samples was 1, is now 2"),
        ({"seed": 1}, "seed was 0, is now 1"),
        ({"bound": sgvb_a}, r"bound was vaetut\.bounds\.sgvb_b, is now vaetut\.bounds\.sgvb_a"),
        ({"bound": nothing}, r"is now .*test_checkpoint\.nothing"),
        ({"bound": functools.partial(sgvb_b)}, r"is now partial\(vaetut\.bounds\.sgvb_b\)"),
        ({"optimizer": "adagrad"}, r"optimizer was Adam\(8 parameters.*is now Adagrad"),
        ({"learning_rate": 0.02}, r"optimizer was .*lr=0\.01.* is now .*lr=0\.02"),
        ({"binarize": "none"}, "binarize was dynamic, is now none"),
        ({"precision": "high"}, "precision was highest, is now high"),
        ({"compile": True}, "compile was False, is now True"),
        ({"data": gray(121)}, r"data was float32 \[120, 6\] [0-9a-f]{32}, is now float32 \[121, 6\]"),
        ({"data": gray().flip(0)}, r"data was float32 \[120, 6\] \w+, is now float32 \[120, 6\]"),
        ({"validation": None}, r"validation was float32 \[30, 6\] \w+, is now None"),
        ({"validation": gray(30) / 2}, "validation was"),
        ({"model": {"hidden_dim": 9}}, r"architecture was .*hidden_dim=8, .* is now .*hidden_dim=9, "),
        ({"model": {"activation": "relu"}}, "architecture was .*tanh.* is now .*relu"),
        ({"model": {"likelihood": "gaussian"}}, "architecture was"),
        ({"epochs": 2}, "epochs must be at least 3, .*got 2: it is the number of all epochs"),
    ],
)
def test_another_run_is_refused(kept, change, message):
    model = small(**change.pop("model", {}))
    before, start = kept.read_bytes(), parameters(model)
    with pytest.raises(ValueError, match=message):
        run(model, **change, checkpoint=kept, resume=True)
    assert kept.read_bytes() == before and torch.equal(parameters(model), start)
    assert os.listdir(kept.parent) == ["run.pt"]


def test_another_dtype_is_refused(kept):
    with pytest.raises(ValueError, match=r"float32.*float64"):
        double = {"data": gray().double(), "validation": gray(30).double()}
        run(small().double(), **double, checkpoint=kept, resume=True)


def refused(path, content, message):
    path.write_bytes(content)
    model = small()
    with pytest.raises(ValueError, match=message):
        run(model, checkpoint=path, resume=True)
    assert path.read_bytes() == content and torch.equal(parameters(model), parameters(small()))


def test_each_byte_counts(kept):
    content = kept.read_bytes()
    size = len(content)
    places = {*range(0, size, size // 150), *range(size - 90, size), *range(40)}
    for place in sorted(places):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        kept.write_bytes(changed)
        with pytest.raises(ValueError, match="the file is left as it is"):
            checkpoints.read(kept)
    refused(kept, bytes(changed), "left as it is")
    kept.write_bytes(content)
    assert checkpoints.read(kept)["epoch"] == 3


def test_cut_short(kept):
    content = kept.read_bytes()
    for size in (0, 1, 10, 100, len(content) // 2, len(content) - 91, len(content) - 1):
        refused(kept, content[:size], "is incomplete" if size > 1 else "was not written by vaetut.train")
    refused(kept, content + b"\n", "is incomplete")


def signed(content):
    payload = io.BytesIO()
    torch.save(content, payload)
    digest = hashlib.sha256(payload.getvalue()).hexdigest()
    return payload.getvalue() + f"\nvaetut checkpoint 0001 {digest}\n".encode()


def test_foreign(path):
    buffer = io.BytesIO()
    torch.save(small().state_dict(), buffer)
    refused(path, buffer.getvalue(), "not written by vaetut.train")
    refused(path, b"# my notes\n" * 100, "was not written by vaetut.train")
    refused(path, signed(small().state_dict()), "must hold epoch, model")
    refused(path, signed([1]), "must hold a dict, got list")
    refused(
        path, signed({}).replace(b"checkpoint 0001", b"checkpoint 0002"), "has format 2, this vaetut reads"
    )


def test_no_code_is_run(path):
    """A pickle that would write a file, with a hash that is right."""

    class Evil:
        def __reduce__(self):
            return (open, (str(path.parent / "owned"), "w"))

    refused(
        path, signed({"epoch": Evil()}), r"cannot be read as tensors and plain values \(UnpicklingError\)"
    )
    content = pickle.dumps(Evil())
    digest = hashlib.sha256(content).hexdigest()
    refused(path, content + f"\nvaetut checkpoint 0001 {digest}\n".encode(), "cannot be read")
    assert os.listdir(path.parent) == ["run.pt"]


def changed(content, *keys, value):
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return content


@pytest.mark.parametrize(
    "keys, value, message",
    [
        (("epoch",), 9, "epochs must be at least 9"),
        (("history",), {"other": []}, "does not fit the run"),
        (("history",), 3, "does not fit the run"),
        (("random_states",), [], "does not fit the run"),
        (("random_states", 0, 0), torch.zeros(3, dtype=torch.uint8), "does not fit the run"),
        (("model", "encoder.0.bias"), 1.0, r"encoder\.0\.bias was float, is now float32 \[8\]"),
        (
            ("model", "encoder.0.bias"),
            torch.zeros(9),
            r"encoder\.0\.bias was float32 \[9\], is now float32 \[8\]",
        ),
        (
            ("model", "encoder.0.bias"),
            torch.zeros(8).double(),
            r"bias was float64 \[8\], is now float32 \[8\]",
        ),
        (("model", "more"), torch.zeros(8), r"more was float32 \[8\], is now None"),
        (("optimizer", "state"), [], "does not fit the run"),
        (("optimizer", "param_groups"), [], "does not fit the run"),
        (("optimizer",), {}, "does not fit the run"),
        (("configuration", "seed"), 5, "seed was 5, is now 0"),
        (("configuration",), {}, "model was None, is now vaetut.models.VAE"),
    ],
)
def test_tampered_with_the_right_hash(kept, keys, value, message):
    refused(kept, signed(changed(checkpoints.read(kept), *keys, value=value)), message)


def test_bad_arguments(tmp_path):
    for options, error, message in (
        ({"checkpoint": 1}, TypeError, "checkpoint must be a path, got int"),
        ({"checkpoint": tmp_path}, ValueError, "checkpoint must be the path of a file, got the folder"),
        (
            {"checkpoint": tmp_path / "a" / "b"},
            FileNotFoundError,
            "checkpoint must be in a folder that exists",
        ),
        ({"resume": True}, ValueError, "resume=True requires checkpoint"),
        ({"resume": "yes"}, TypeError, "resume must be True or False, got 'yes'"),
    ):
        model = small()
        with pytest.raises(error, match=message):
            run(model, **options)
        assert torch.equal(parameters(model), parameters(small())) and not os.listdir(tmp_path)


def test_a_state_that_cannot_be_kept_fails_at_once(path):
    class Odd(VAE):
        def get_extra_state(self):
            return pickle

        def set_extra_state(self, state):
            pass

    with pytest.raises(TypeError, match="model must have a state_dict of tensors and plain values"):
        run(Odd(6, 2, 8), checkpoint=path)
    assert not os.listdir(path.parent)


# --- what others read


def test_the_parameters_are_read_by_torch_alone(kept):
    model = VAE(6, 2, 8)
    model.load_state_dict(torch.load(kept, weights_only=True)["model"])
    assert torch.equal(parameters(model), parameters(load_model(kept)))
