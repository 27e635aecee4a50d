"""The training loop: against a loop written out here, and against models whose best bound is known exactly."""

import json
import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal
from torch.utils._python_dispatch import TorchDispatchMode
from torch_kernels import COMPILES_IN_ORDER

from vaetut.aevb import History, train
from vaetut.bounds import sgvb_a, sgvb_b
from vaetut.data import ImageData, binarize, load
from vaetut.exact import LinearGaussian
from vaetut.models import VAE


def gray(n=250, dim=6, dtype=torch.float32):
    return torch.rand(n, dim, dtype=dtype, generator=torch.Generator().manual_seed(1))


def small(likelihood="bernoulli", dtype=torch.float32, dim=6):
    torch.manual_seed(0)
    return VAE(dim, 2, 8, likelihood).to(dtype)


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Recorder:
    """A bound that keeps what it was given."""

    def __init__(self):
        self.training, self.validation, self.modes = [], [], []

    def __call__(self, model, q, x, num_samples):
        (self.training if torch.is_grad_enabled() else self.validation).append(x.clone())
        self.modes.append((torch.is_grad_enabled(), model.training))
        return sgvb_b(model, q, x, num_samples)


# --- what it computes


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("name", ["adam", "adagrad", "sgd"])
def test_is_the_loop_of_the_chapter(likelihood, name):
    x, model, other = gray(), small(likelihood), small(likelihood)
    history = train(
        model, x, epochs=2, batch_size=100, num_samples=3, seed=7, optimizer=name, learning_rate=0.01
    )

    kind = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}[name]
    optimizer = kind(other.parameters(), lr=0.01)
    torch.manual_seed(7)
    curve = []
    for _ in range(2):
        total = 0.0
        for index in torch.randperm(250).split(100):
            batch = binarize(x[index]) if likelihood == "bernoulli" else x[index]
            bound = sgvb_b(other, other.encode(batch), batch, 3)
            optimizer.zero_grad()
            (-bound.mean()).backward()
            optimizer.step()
            total += bound.sum().item()
        curve.append(total / 250)
    assert torch.allclose(parameters(model), parameters(other), atol=1e-6)
    assert history.train == pytest.approx(curve, rel=1e-5)
    assert not torch.allclose(parameters(model), parameters(small(likelihood)), atol=1e-3)


class LinearEncoder(nn.Module):
    """A linear-Gaussian model with the decoder known and an encoder to be learned, which can be exact."""

    def __init__(self, exact):
        super().__init__()
        data_dim, latent_dim = exact.weight.shape
        self.exact = exact
        self.mean = nn.Linear(data_dim, latent_dim, dtype=torch.float64)
        self.log_scale = nn.Parameter(torch.zeros(latent_dim, dtype=torch.float64))
        self.prior, self.likelihood = exact.prior, exact.likelihood

    def encode(self, x):
        return Independent(Normal(self.mean(x), self.log_scale.exp().expand(len(x), -1)), 1)


@pytest.mark.parametrize("bound", [sgvb_a, sgvb_b])
def test_an_encoder_that_can_be_exact_becomes_exact(bound):
    """Orthogonal columns make the posterior diagonal and linear in x: then the best bound is log p(x)."""
    torch.manual_seed(0)
    weight = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.5, 1.0], [-0.5, 1.0]], dtype=torch.float64)
    weight[:, 1] -= weight[:, 0] * (weight[:, 0] @ weight[:, 1]) / weight[:, 0].square().sum()
    exact = LinearGaussian(weight, torch.zeros(4, dtype=torch.float64), 0.7)
    x = exact.evidence.sample((500,))
    model = LinearEncoder(exact)
    before = exact.elbo(model.encode(x), x)
    train(model, x, epochs=60, bound=bound, learning_rate=0.02)
    q, posterior = model.encode(x), exact.posterior(x)
    after, evidence = exact.elbo(q, x), exact.log_evidence(x)
    assert (evidence - before).mean() > 1
    assert (evidence - after).mean() < 0.01 and (evidence >= after - 1e-12).all()
    assert torch.allclose(q.mean, posterior.mean, atol=0.15)
    assert torch.allclose(q.variance, posterior.covariance_matrix.diagonal(dim1=-2, dim2=-1), rtol=0.15)


def test_a_linear_vae_is_probabilistic_pca():
    """Its bound is the evidence of the maximum-likelihood fit, which is known in closed form, to 0.01 nats.

    Both are exact: the trained model is itself a linear-Gaussian one, whose bound has no Monte Carlo error.
    """
    torch.manual_seed(0)
    mixing = torch.randn(2, 5, dtype=torch.float64) * torch.tensor([[1.5], [0.7]])
    x = (
        torch.randn(1000, 2, dtype=torch.float64) @ mixing
        + 0.4 * torch.randn(1000, 5, dtype=torch.float64)
        + 1
    )
    model = VAE(5, 2, hidden_dim=(), likelihood="isotropic").double()

    def gap():
        with torch.no_grad():
            (decoder,) = model.decoder
            trained = LinearGaussian(decoder.weight, decoder.bias, model.log_noise_scale.exp())
            return (LinearGaussian.fit(x, 2).log_evidence(x) - trained.elbo(model.encode(x), x)).mean().item()

    assert gap() > 1
    for epochs, rate in ((100, 0.02), (60, 0.002), (40, 0.0005)):
        train(model, x, epochs=epochs, learning_rate=rate)
    assert 0 < gap() < 0.01


def test_digits_beat_independent_pixels():
    """The best model without a latent variable is a table of 64 frequencies; its mean log-probability is known."""
    data = load("digits")
    p = data.train.double().mean(0).clamp(1e-3, 1 - 1e-3)
    test = data.test.double()
    independent = (test * p.log() + (1 - test) * (1 - p).log()).sum(-1).mean().item()
    torch.manual_seed(0)
    model = VAE(64, 2, 50)
    history = train(model, data, epochs=10, learning_rate=0.01)
    assert len(history.train) == len(history.validation) == 10
    assert history.validation[-1] > independent + 1
    assert history.validation[-1] > history.validation[0] + 1
    assert all(b > a - 0.3 for a, b in zip(history.validation, history.validation[1:], strict=False))


def test_history_is_the_mean_over_the_data():
    """One batch is smaller: the mean of the batches' means would be wrong."""
    x = gray()

    def bound(model, q, batch, num_samples):
        return batch[:, 0] + 0 * q.mean.sum(-1)

    history = train(small("gaussian"), x, epochs=2, batch_size=200, bound=bound, validation=x[:30] + 1)
    assert history.train == pytest.approx([x[:, 0].mean().item()] * 2, rel=1e-6)
    assert history.validation == pytest.approx([1 + x[:30, 0].mean().item()] * 2, rel=1e-6)
    order = torch.randperm(250, generator=torch.Generator().manual_seed(0))
    means = [x[index, 0].mean() for index in order.split(200)]
    assert abs(sum(means).item() / 2 - history.train[0]) > 1e-4


def test_every_datapoint_once_an_epoch_in_a_new_order():
    x, bound = gray(), Recorder()
    train(small("gaussian"), x, epochs=2, batch_size=70, bound=bound)
    assert [len(batch) for batch in bound.training] == [70, 70, 70, 40] * 2
    first, second = torch.cat(bound.training[:4]), torch.cat(bound.training[4:])
    for epoch in (first, second):
        assert not torch.equal(epoch, x)
        assert torch.equal(epoch[epoch[:, 0].argsort()], x[x[:, 0].argsort()])
    assert not torch.equal(first, second)


def test_binarize():
    x, validation = gray(), gray(40)
    for how, likelihood in (("auto", "bernoulli"), ("dynamic", "gaussian"), ("threshold", "bernoulli")):
        bound = Recorder()
        train(
            small(likelihood), x, epochs=2, batch_size=250, bound=bound, binarize=how, validation=validation
        )
        first, second = (epoch[epoch.sum(-1).argsort()] for epoch in bound.training)
        assert set(first.unique().tolist()) == {0.0, 1.0}
        assert (first.sum() == second.sum()).item() == (how == "threshold")
        (*_, once, again) = bound.validation
        assert torch.equal(once, again) and set(once.unique().tolist()) == {0.0, 1.0}
    for how, likelihood in (("none", "bernoulli"), ("auto", "gaussian")):
        bound = Recorder()
        train(small(likelihood), x, epochs=1, batch_size=250, bound=bound, binarize=how)
        assert (bound.training[0] == x[0]).all(-1).any()


def test_model_is_in_training_mode_only_for_training():
    model, bound = small(), Recorder()
    model.eval()
    train(model, gray(), epochs=2, bound=bound, validation=gray(40))
    assert not model.training
    assert set(bound.modes[2:]) == {(True, True), (False, False)}


# --- repeatable, and leaves nothing behind


def test_same_seed_same_run():
    def run(seed, **options):
        model = small()
        return train(model, gray(), epochs=3, seed=seed, **options).to_dict(), parameters(model)

    (h1, p1), (h2, p2), (h3, p3) = run(5), run(5), run(6)
    assert h1 == h2 and torch.equal(p1, p2)
    assert h1 != h3 and not torch.equal(p1, p3)
    h4, p4 = run(5, validation=gray(40))
    assert h4["train"] == h1["train"] and torch.equal(p1, p4)


def test_validation_noise_is_the_same_in_every_epoch():
    noise = {True: [], False: []}

    def bound(model, q, x, num_samples):
        noise[torch.is_grad_enabled()].append(torch.rand(()).item())
        return sgvb_b(model, q, x, num_samples)

    train(small(), gray(), epochs=3, bound=bound, validation=gray(40))
    assert len(set(noise[False][2:])) == 1 and len(set(noise[True])) == len(noise[True]) == 9


def test_global_random_state_is_left_alone():
    model = small()
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    train(model, gray(), epochs=1, validation=gray(40))
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(123)
    with pytest.raises(ValueError, match="data"):
        train(model, gray() + 1, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_checks_are_on_again_afterwards():
    model = small()
    train(model, gray(), epochs=1)
    x = gray() + 1
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        sgvb_b(model, model.encode(x), x)


def test_quiet_when_not_a_terminal(capfd):
    train(small(), gray(), epochs=2, validation=gray(40))
    assert capfd.readouterr() == ("", "")


def test_data_is_not_changed():
    x = gray()
    train(small(), x, epochs=1, batch_size=1000)
    assert torch.equal(x, gray())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes(dtype):
    model = small(dtype=dtype)
    history = train(
        model, gray(dtype=dtype), epochs=1, device="cpu", optimizer=lambda p: torch.optim.SGD(p, 0.1)
    )
    assert parameters(model).dtype == dtype and math.isfinite(history.train[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda():
    model, state = small(), torch.cuda.get_rng_state()
    train(model, gray(), epochs=1, validation=gray(40))
    assert next(model.parameters()).device.type == "cpu"
    assert torch.equal(torch.cuda.get_rng_state(), state)
    train(model.cuda(), gray().cuda(), epochs=1, device="cpu")
    assert next(model.parameters()).device.type == "cuda"


def test_images():
    x = gray(60, 6)
    data = ImageData(x[:50], torch.zeros(50), x[50:], torch.zeros(10), (2, 3), "gray")
    assert len(train(small(), data, epochs=2).validation) == 2
    bound = Recorder()
    train(small("gaussian"), data, epochs=1, bound=bound, validation=x[:7])
    assert torch.equal(bound.validation[-1], x[:7])
    assert len(train(small(), data.train, epochs=2).validation) == 0


# --- compiled, less precise


def test_compiled():
    """The same random numbers in one graph: the same run, but for rounding. And what it switches is put back."""
    curves, ends = [], []
    options = {"epochs": 2, "learning_rate": 0.01, "validation": gray(40)}
    options["binarize"] = "dynamic" if COMPILES_IN_ORDER else "threshold"
    for compile in (False, True):
        model = small()
        history = train(model, gray(), compile=compile, **options)
        curves.append(history.train + history.validation)
        ends.append(parameters(model))
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert torch.allclose(*ends, atol=1e-6)
    with pytest.raises(ValueError, match="scale"):
        Normal(0.0, torch.tensor(-1.0))


def test_a_bound_that_changes_is_compiled_again():
    """A weight that the bound takes from outside: with the code of the first epoch the second would be wrong."""
    weight = {"kl": 0.0}

    def bound(model, q, x, num_samples):
        return sgvb_b(model, q, x, num_samples) * weight["kl"] + 0 * q.mean.sum(-1)

    def optimizer(p):
        class Warmer(torch.optim.SGD):
            def step(self, closure=None):
                weight["kl"] += 1.0
                return super().step(closure)

        return Warmer(p, 1e-9)

    history = train(small(), gray(), epochs=2, batch_size=250, bound=bound, optimizer=optimizer, compile=True)
    assert history.train[0] == 0 and history.train[1] < -1


def test_compiled_resumes_to_the_bit(tmp_path):
    expected, model = small(), small()
    train(expected, gray(), epochs=2, compile=True)
    train(small(), gray(), epochs=1, compile=True, checkpoint=tmp_path / "run.pt")
    train(model, gray(), epochs=2, compile=True, checkpoint=tmp_path / "run.pt", resume=True)
    assert torch.equal(parameters(expected), parameters(model))


def test_what_cannot_be_compiled():
    def bound(model, q, x, num_samples):
        values = sgvb_b(model, q, x, num_samples)
        return values if values.sum().item() < 1e9 else 2 * values

    with pytest.raises(
        ValueError, match=r"compile must be False for this model and bound: torch\.compile fails"
    ):
        train(small(), gray(), epochs=1, bound=bound, compile=True)


def test_precision_holds_during_the_call_alone():
    seen = set()

    def bound(model, q, x, num_samples):
        seen.add(torch.get_float32_matmul_precision())
        return sgvb_b(model, q, x, num_samples)

    before = torch.get_float32_matmul_precision()
    train(small(), gray(), epochs=1, bound=bound, precision="medium")
    assert (
        seen == {before, "medium"} and torch.get_float32_matmul_precision() == before
    )  # tried before, on two images
    with pytest.raises(FloatingPointError):
        train(small(), gray(), epochs=1, bound=lambda *a: sgvb_b(*a) * math.nan, precision="medium")
    assert torch.get_float32_matmul_precision() == before


# --- History


def test_history():
    history = History([-3.0, -2.0], [-3.5, -2.5])
    assert json.loads(json.dumps(history.to_dict())) == {"train": [-3.0, -2.0], "validation": [-3.5, -2.5]}
    texts = [text.get_text() for text in history.plot().axes[0].texts]
    assert texts == ["train", "validation"]
    assert len(History([-3.0, -2.0]).plot().axes[0].texts) == 1


# --- what goes wrong


def test_not_finite_names_epoch_and_step():
    calls = []

    def bound(model, q, x, num_samples):
        calls.append(torch.is_grad_enabled())
        values = sgvb_b(model, q, x, num_samples)
        return values * float("nan") if sum(calls) == 8 else values  # step 3 of the second epoch

    model = small().eval()
    with pytest.raises(FloatingPointError, match=r"training bound .* epoch 2, step 3; .*\(now 0\.01;"):
        train(model, gray(), epochs=3, batch_size=50, bound=bound, learning_rate=0.01)
    assert not model.training


def test_too_large_a_learning_rate():
    with pytest.raises(FloatingPointError, match="learning rate that is too large"):
        train(small("gaussian"), gray() * 100, epochs=3, optimizer="sgd", learning_rate=1e6)


@pytest.mark.parametrize("name", ["adagrad", "adam"])
def test_the_first_step_is_the_learning_rate_however_small_the_gradient(name):
    """g / sqrt(g^2) is the sign of g, and nothing else: both optimizers divide by the gradient's own size."""
    model = small(dtype=torch.float64)
    before = parameters(model)
    train(model, gray(dtype=torch.float64), epochs=1, batch_size=250, optimizer=name, learning_rate=0.02)
    assert torch.allclose((parameters(model) - before).abs(), torch.full_like(before, 0.02), rtol=1e-3)


def test_adagrad_from_the_paper_s_start():
    """AEVB starts from N(0, 0.01) and tries the step sizes 0.01, 0.02 and 0.1. A first step of 0.1 times a sign, in
    each of 200 weights, carries log sigma^2 to some 20: the bound falls to a million nats below zero, and only comes
    back because float32 can still hold it. With larger steps it cannot.
    """
    x = binarize(load("digits").train, "threshold")

    def curve(rate):
        torch.manual_seed(0)
        model = VAE(64, 3, 200)
        for parameter in model.parameters():
            nn.init.normal_(parameter, 0, 0.1)
        return train(model, x, epochs=2, optimizer="adagrad", learning_rate=rate).train

    slow, fast = curve(0.01), curve(0.1)
    assert -45 < slow[0] < slow[1]
    assert fast[0] < -1e4 and fast[1] > -60
    with pytest.raises(FloatingPointError, match=r"epoch 1, step \d; .*\(now 1; the first step of Ada"):
        curve(1.0)


def test_validation_that_is_not_finite():
    def bound(model, q, x, num_samples):
        return sgvb_b(model, q, x, num_samples) * (1 if len(x) != 40 else math.inf)

    with pytest.raises(FloatingPointError, match="validation bound is not finite, first in epoch 1"):
        train(small(), gray(), epochs=1, bound=bound, validation=gray(40))


def nan(x):
    x[3, 2] = float("nan")
    return x


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"epochs": 2.0}, TypeError, "epochs must be an int"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"num_samples": 0}, ValueError, "num_samples must be at least 1"),
        ({"seed": 1.5}, TypeError, "seed must be an int"),
        ({"bound": "sgvb_b"}, TypeError, "bound must be a function such as vaetut.sgvb_b, got str"),
        (
            {"bound": lambda m, q, x, n: sgvb_b(m, q, x, n).mean()},
            ValueError,
            "bound must return one value per",
        ),
        (
            {"bound": lambda m, q, x, n: m.likelihood(q.rsample((n,))).log_prob(x)},
            ValueError,
            "one value per",
        ),
        ({"optimizer": "adm"}, ValueError, "optimizer must be one of .*did you mean 'adam'"),
        (
            {"optimizer": lambda p: None},
            TypeError,
            "optimizer must return a torch.optim.Optimizer, got NoneType",
        ),
        (
            {"optimizer": lambda p: torch.optim.SGD(p, 0.1), "learning_rate": 0.1},
            ValueError,
            "learning_rate must be None when optimizer is a function",
        ),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be positive and finite"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate must be positive and finite"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate must be a number"),
        ({"binarize": "yes"}, ValueError, "binarize must be one of 'auto', 'dynamic', 'threshold', 'none'"),
        ({"precision": "low"}, ValueError, "precision must be one of 'highest', 'high', 'medium', got 'low'"),
        ({"compile": 1}, TypeError, "compile must be True or False, got 1 of type int"),
        ({"fabric": 2}, TypeError, r"fabric must be a lightning_fabric\.Fabric, got int"),
        ({"device": "gpu"}, ValueError, "device must be 'auto' or a device of this machine, got 'gpu'"),
        ({"device": "cuda:99"}, ValueError, "device must be 'auto' or a device of this machine"),
        ({"data": [[0.5]]}, TypeError, r"data must be a torch.Tensor, a NumPy array, .*, got list"),
        ({"data": gray().byte()}, TypeError, "data must have dtype torch.float32 or torch.float64"),
        ({"data": gray(dtype=torch.float64)}, TypeError, r"data must have the dtype .*model\.double\(\)"),
        ({"data": gray()[0]}, ValueError, r"data must have shape \[N, D\]"),
        ({"data": gray().view(-1, 2, 3)}, ValueError, r"data must have shape \[N, D\]"),
        ({"data": gray()[:0]}, ValueError, "data must have shape"),
        (
            {"data": gray(dim=5)},
            ValueError,
            r"data must fit the model and the bound: x must have shape",
        ),
        ({"data": nan(gray())}, ValueError, "data must be finite"),
        (
            {"data": gray() * 255},
            ValueError,
            r"data must lie in \[0, 1\] for a Bernoulli .*divide 8-bit pixels",
        ),
        ({"validation": gray(dim=5)}, ValueError, "validation must fit the model"),
        ({"validation": gray() - 0.5}, ValueError, r"validation must lie in \[0, 1\]"),
        ({"validation": 0.1}, TypeError, "validation must be a torch.Tensor, .*, got float"),
        (
            {"model": lambda x: x},
            TypeError,
            "model must be a torch.nn.Module such as vaetut.VAE, got function",
        ),
        ({"model": nn.Linear(6, 2)}, TypeError, r"model must have .encode\(x\).*Linear has no .encode"),
        ({"model": small().requires_grad_(False)}, ValueError, "model must have parameters to train"),
    ],
)
def test_bad_arguments(change, error, message):
    model = change.get("model", small())
    before = parameters(model) if isinstance(model, nn.Module) else None
    with pytest.raises(error, match=message):
        train(**{"model": model, "data": gray(), "epochs": 1, **change})
    if before is not None:
        assert torch.equal(parameters(model), before)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_no_hidden_wait_for_the_device(likelihood):
    """Values reach the host once per epoch and curve, not once per step: steps do not change the count."""

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
            return func(*args, **(kwargs or {}))

    counts = []
    for epochs, batch_size in ((2, 250), (2, 10), (5, 10)):
        with Count() as mode:
            mode.count = 0
            train(small(likelihood), gray(), epochs=epochs, batch_size=batch_size, validation=gray(40))
        counts.append(mode.count)
    assert counts[1] == counts[0] and counts[2] == counts[0] + 2 * 3
