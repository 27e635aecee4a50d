"""Data of every kind: the same rows give the same run, and what does not fit in memory is read as it is needed."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, TensorDataset

from vaetut.aevb import train
from vaetut.bounds import sgvb_b
from vaetut.data import load
from vaetut.models import VAE


def gray(n=90, dim=6):
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(1))


def small(likelihood="bernoulli"):
    torch.manual_seed(0)
    return VAE(6, 2, 5, likelihood)


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def run(data, **options):
    model = small(options.pop("likelihood", "bernoulli"))
    history = train(model, data, **{"epochs": 2, "batch_size": 25, "validation": gray(30), **options})
    return history.to_dict(), parameters(model)


def same(one, other):
    return one[0] == other[0] and torch.equal(one[1], other[1])


class Images(Dataset):
    """Items as torchvision gives them: an image with a channel, and a label."""

    def __len__(self):
        return 90

    def __getitem__(self, i):
        return gray()[i].view(1, 2, 3), i


@pytest.fixture(scope="module")
def expected():
    return run(gray())


def memory_mapped(folder, values, order="C"):
    np.save(folder / "x.npy", np.asarray(values, order=order))
    return np.load(folder / "x.npy", mmap_mode="r")


@pytest.mark.parametrize(
    "made",
    [
        lambda folder: gray().numpy(),
        lambda folder: gray().numpy()[::-1][::-1],
        lambda folder: np.broadcast_to(gray().numpy(), (1, 90, 6))[0],
        lambda folder: memory_mapped(folder, gray().numpy()),
        lambda folder: memory_mapped(folder, gray().numpy(), "F"),
        lambda folder: memory_mapped(folder, np.vstack([gray(9).numpy(), gray().numpy()]))[9:],
        lambda folder: memory_mapped(folder, gray().double().numpy()),
        lambda folder: TensorDataset(gray()),
        lambda folder: ConcatDataset(
            [TensorDataset(gray()[:40], torch.arange(40)), TensorDataset(gray()[40:])]
        ),
        lambda folder: Images(),
        lambda folder: gray().double().numpy(),
    ],
)
def test_the_same_rows_give_the_same_run(tmp_path, expected, made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(run(made(tmp_path)), expected)


def test_a_loader_has_its_own_order():
    x = gray()
    seen = []

    def bound(model, q, batch, num_samples):
        if torch.is_grad_enabled():
            seen.append(batch)
        return sgvb_b(model, q, batch, num_samples)

    loader = DataLoader(TensorDataset(x, torch.arange(90)), 40)  # not shuffled
    run(loader, bound=bound, binarize="none", batch_size=40, validation=DataLoader(TensorDataset(x), 7))
    assert [len(batch) for batch in seen] == [40, 40, 10] * 2
    assert torch.equal(torch.cat(seen[:3]), x)

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(x)

    assert run(DataLoader(Stream(), 25))[0]["train"] == run(DataLoader(x, 25))[0]["train"]
    assert not same(run(DataLoader(x, 25, shuffle=True)), run(DataLoader(x, 25)))
    assert same(run(DataLoader(x, 25, shuffle=True)), run(DataLoader(x, 25, shuffle=True)))


def test_validation_of_every_kind(tmp_path):
    x = gray(30)
    exact = run(gray(), binarize="none")
    for validation in (x.numpy(), memory_mapped(tmp_path, x.numpy()), ConcatDataset([TensorDataset(x)])):
        assert same(run(gray(), binarize="none", validation=validation), exact)
    once = [run(gray(), validation=memory_mapped(tmp_path, x.numpy())) for _ in range(2)]
    assert same(*once) and torch.equal(once[0][1], run(gray())[1])  # its noise is none of the training's


def test_drop_last():
    seen = []

    def bound(model, q, x, num_samples):
        if torch.is_grad_enabled():
            seen.append(x)
        return x[:, 0] + 0 * q.mean.sum(-1)

    curve = run(gray(), bound=bound, binarize="none", batch_size=40, drop_last=True)[0]["train"]
    assert [len(x) for x in seen] == [40, 40] * 2
    assert curve == pytest.approx([torch.cat(seen[i : i + 2])[:, 0].mean().item() for i in (0, 2)])


SCRIPT = """
import sys
import numpy as np, torch
from vaetut.aevb import train
from vaetut.models import VAE

class Enough(Exception):
    pass

def resident():
    with open("/proc/self/status") as file:
        lines = [line.split() for line in file if line.startswith(("VmHWM", "VmRSS"))]
    return {name.rstrip(":"): int(value) // 1024 for name, value, _ in lines}

def optimizer(parameters):
    made = torch.optim.SGD(parameters, 1e-3)
    def count(*_):
        count.steps += 1
        if count.steps == 200:
            raise Enough
    count.steps = 0
    made.register_step_post_hook(count)
    return made

x = np.load(sys.argv[1], mmap_mode="r")
assert x.nbytes > 20e9
before = resident()["VmRSS"]
try:
    train(VAE(x.shape[1], 2, 4), x, epochs=1, optimizer=optimizer, checkpoint=sys.argv[1] + ".pt", device="cpu")
except Enough:
    print(resident()["VmHWM"] - before, resident()["VmHWM"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and needs sparse files")
def test_twenty_gigabytes_train_within_one(tmp_path):
    """A sparse file: its zeros take no disk, but every page that is read would stay in memory."""
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(6_500_000, 784))
    assert path.stat().st_size > 20e9 and path.stat().st_blocks * 512 < 1e6
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown, peak = map(int, done.stdout.split())
    assert peak < 1000 and grown < 400  # MB; 200 steps touch 20,000 rows, of 16 pages or more each


def test_memory_mapped_resumes_to_the_bit(tmp_path):
    expected = run(gray(), epochs=4)
    x = memory_mapped(tmp_path, gray().numpy())
    for epochs in (1, 3, 4):
        end = run(x, epochs=epochs, checkpoint=tmp_path / "run.pt", resume=True)
    assert same(end, expected)
    changed = gray()
    changed[89, 5] /= 2
    with pytest.raises(
        ValueError, match=r"data was float32 \[90, 6\] \w+ of 90 rows, is now float32 \[90, 6\]"
    ):
        run(memory_mapped(tmp_path, changed.numpy()), epochs=5, checkpoint=tmp_path / "run.pt", resume=True)


def bad_items(value):
    return ConcatDataset([TensorDataset(value)])


class Labeled(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return {"image": gray()[i]}


@pytest.mark.parametrize(
    "data, error, message",
    [
        (
            gray().to_sparse(),
            TypeError,
            r"data must be dense, got layout torch.sparse_coo; data.to_dense\(\)",
        ),
        (gray().requires_grad_(), ValueError, r"data must not require a gradient.*data.detach\(\)"),
        (
            (255 * gray()).byte().numpy(),
            TypeError,
            "data must have dtype float32 or float64, got an array of uint8",
        ),
        (bad_items(gray() * 255), ValueError, r"data must lie in \[0, 1\] for a Bernoulli likelihood"),
        (bad_items(gray() * np.nan), ValueError, "data must be finite"),
        (
            bad_items(gray(dim=5)),
            ValueError,
            r"data must fit the model and the bound: x must have shape",
        ),
        (bad_items(gray()[:0]), ValueError, "data must have at least one item"),
        (
            DataLoader(gray(), 30),
            ValueError,
            "batch_size must be left out with a DataLoader, which has its own, 30; got 25",
        ),
        (Labeled(), TypeError, "data must have tensors as items, or tuples that begin with one, got dict"),
        (gray().half().numpy().astype(complex), TypeError, "data must have dtype"),
    ],
)
def test_bad_data(data, error, message):
    with pytest.raises(error, match=message):
        run(data)


def test_bad_rows_are_found_when_they_are_read(tmp_path):
    x = gray()
    x[80] = 7
    with pytest.raises(ValueError, match=r"data must lie in \[0, 1\]"):
        run(memory_mapped(tmp_path, x.numpy()))


def test_a_constant_column_is_warned_about():
    x = gray()
    x[:, 2] = 0.5
    with pytest.warns(UserWarning, match="1 of 6 columns of data are constant, the first is 2") as told:
        run(x, likelihood="gaussian", epochs=1)
    assert len(told) == 1 and told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(x, epochs=1)
        run(x, likelihood="isotropic", epochs=1)
        run(gray(), likelihood="gaussian", epochs=1)


# --- the user's model


class Convolutional(nn.Module):
    """A model of one's own, with batch normalization in encoder and decoder."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Unflatten(-1, (1, 8, 8)), nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(-3),
            nn.Linear(64, 4),
        )  # fmt: skip
        self.first, self.norm, self.last = nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Linear(16, 64)
        self.prior = torch.distributions.Independent(
            torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1
        )

    def encode(self, x):
        mean, log_scale = self.encoder(x).chunk(2, -1)
        return torch.distributions.Independent(torch.distributions.Normal(mean, log_scale.exp()), 1)

    def likelihood(self, z):
        h = self.norm(self.first(z).flatten(0, -2)).relu()
        logits = self.last(h).view(*z.shape[:-1], 64)
        return torch.distributions.Independent(
            torch.distributions.Bernoulli(logits=logits, validate_args=False), 1
        )


def test_batch_normalization():
    torch.manual_seed(0)
    model, seen = Convolutional(), []

    def bound(model, q, x, num_samples):
        seen.append((torch.is_grad_enabled(), model.norm.training, int(model.norm.num_batches_tracked)))
        return sgvb_b(model, q, x, num_samples)

    history = train(model, load("digits"), epochs=3, bound=bound)
    assert history.validation[-1] > history.validation[0]
    assert seen[:3] == [(False, False, 0), (False, False, 0), (True, True, 0)]  # it is tried without a trace
    assert {mode for grad, mode, _ in seen if not grad} == {False}
    assert int(model.norm.num_batches_tracked) == 3 * 15


def test_one_datapoint_left():
    torch.manual_seed(0)
    model, x = Convolutional(), load("digits").train[:101]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"batch_size leaves a last minibatch of one datapoint of 101.*drop_last=True"
    ):
        train(model, x, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    train(model, x, epochs=1, drop_last=True)
    train(VAE(64, 2, 5), x, epochs=1)


def test_modes_are_kept():
    model = Convolutional()
    model.norm.eval()
    before = {name: part.training for name, part in model.named_modules()}
    statistics = model.norm.running_mean.clone(), model.encoder[2].running_mean.clone()
    train(model, load("digits"), epochs=1)
    assert {name: part.training for name, part in model.named_modules()} == before
    assert torch.equal(model.norm.running_mean, statistics[0])
    assert not torch.equal(model.encoder[2].running_mean, statistics[1])
    model.eval()
    train(model, load("digits"), epochs=1)
    assert not model.training and not torch.equal(model.norm.running_mean, statistics[0])


def changed(name, value):
    model = small()
    made = type("Mine", (VAE,), {name: value})(6, 2, 5)
    made.load_state_dict(model.state_dict())
    return made


def broken(self):
    return self.nothing_of_this_name


@pytest.mark.parametrize(
    "name, value, error, message",
    [
        (
            "prior",
            lambda self: 3,
            TypeError,
            r"model\.prior must be a torch\.distributions\.Distribution, p\(z\); .*@property",
        ),
        ("prior", property(broken), AttributeError, "nothing_of_this_name"),
        (
            "likelihood",
            lambda self, z: self.decoder(z),
            TypeError,
            r"likelihood\(z\) must return .*torch.*got Tensor",
        ),
        (
            "likelihood",
            lambda self, z: torch.distributions.Bernoulli(logits=self.decoder(z)),
            ValueError,
            r"likelihood\(z\) must have event_shape \[6\].*Independent\(Bernoulli",
        ),
    ],
)
def test_mistakes_in_a_model(name, value, error, message):
    with pytest.raises(error, match=message):
        train(changed(name, value), gray(), epochs=1)


def test_a_bound_that_returns_a_tuple():
    with pytest.raises(TypeError, match="bound must return a tensor, one value per datapoint, got tuple"):
        run(gray(), bound=lambda *a: (sgvb_b(*a), 0))


@pytest.mark.parametrize(
    "text", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory: you"]
)
def test_out_of_memory(text):
    def bound(*a):
        if torch.is_grad_enabled():
            raise (
                torch.cuda.OutOfMemoryError(text + " more\nand more")
                if "CUDA" in text
                else RuntimeError(text)
            )
        return sgvb_b(*a)

    kind = torch.cuda.OutOfMemoryError if "CUDA" in text else RuntimeError
    with pytest.raises(
        kind, match="out of memory on the device with batch_size=25 and num_samples=1: lower one of"
    ):
        run(gray(), bound=bound)


def test_numbers_of_numpy():
    plain = run(gray(), learning_rate=0.01, seed=3)
    assert same(run(gray(), learning_rate=np.float64(0.01), seed=np.int32(3), batch_size=np.int64(25)), plain)


def test_without_standard_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    run(gray())
