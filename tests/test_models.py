"""The VAE module: its three distributions against formulas written out here, and one bound against quadrature."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal
from torch.nn.functional import linear

from vaetut.bounds import elbo_terms, log_evidence, sgvb_a, sgvb_b
from vaetut.information import kl_divergence
from vaetut.models import VAE, GrayBernoulli

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "softplus": torch.nn.functional.softplus}


def make(
    likelihood="bernoulli", dtype=torch.float64, activation="tanh", data_dim=5, latent_dim=2, hidden_dim=7
):
    torch.manual_seed(0)
    return VAE(data_dim, latent_dim, hidden_dim, likelihood, activation=activation).to(dtype)


def pixels(*shape, dtype=torch.float64):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_encoder_is_appendix_c(activation):
    model, x = make(activation=activation), pixels(3, 5)
    first, _, head = model.encoder
    hidden = ACTIVATIONS[activation](x @ first.weight.T + first.bias)
    output = hidden @ head.weight.T + head.bias
    mean, variance = output[:, :2], output[:, 2:].exp()
    q = model.encode(x)
    assert isinstance(q, Independent) and isinstance(q.base_dist, Normal)
    z = pixels(4, 3, 2)
    density = -0.5 * ((z - mean) ** 2 / variance + torch.log(2 * math.pi * variance))
    assert torch.allclose(q.mean, mean) and torch.allclose(q.variance, variance)
    assert torch.allclose(q.log_prob(z), density.sum(-1), atol=1e-12)


def test_prior_is_standard_normal():
    z = pixels(4, 2)
    expected = -0.5 * (z**2).sum(-1) - math.log(2 * math.pi)
    assert torch.allclose(make().prior.log_prob(z), expected, atol=1e-12)
    assert make().prior.batch_shape == () and make().prior.event_shape == (2,)


def test_bernoulli_decoder():
    model, z, x = make(), pixels(4, 3, 2), pixels(3, 5)
    first, _, head = model.decoder
    p = torch.sigmoid(linear(torch.tanh(linear(z, first.weight, first.bias)), head.weight, head.bias))
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    likelihood = model.likelihood(z)
    assert isinstance(likelihood.base_dist, Bernoulli)
    assert torch.allclose(likelihood.log_prob(x), expected, atol=1e-12)
    assert torch.allclose(likelihood.mean, p, atol=1e-12)


def test_gaussian_decoder():
    model, z, x = make("gaussian"), pixels(4, 3, 2), pixels(3, 5) * 9 - 4
    first, _, head = model.decoder
    output = linear(torch.tanh(linear(z, first.weight, first.bias)), head.weight, head.bias)
    mean, variance = output[..., :5], output[..., 5:].exp()
    expected = (-0.5 * (x - mean) ** 2 / variance - 0.5 * torch.log(2 * math.pi * variance)).sum(-1)
    assert torch.allclose(model.likelihood(z).log_prob(x), expected, atol=1e-12)


def test_isotropic_decoder():
    model, z, x = make("isotropic"), pixels(4, 3, 2), pixels(3, 5) * 9 - 4
    with torch.no_grad():
        model.log_noise_scale.fill_(-0.3)
    first, _, head = model.decoder
    mean = linear(torch.tanh(linear(z, first.weight, first.bias)), head.weight, head.bias)
    variance = math.exp(-0.6)
    expected = (-0.5 * (x - mean) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)).sum(-1)
    assert torch.allclose(model.likelihood(z).log_prob(x), expected, atol=1e-12)
    assert [name for name, _ in model.named_parameters()][-1].startswith("decoder")
    assert [p.shape for name, p in model.named_parameters() if name == "log_noise_scale"] == [()]
    assert make("gaussian").log_noise_scale is None


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_several_layers(activation):
    """Widths from x to z in the encoder, the other way round in the decoder."""
    model, x, z = make(hidden_dim=(7, 4, 3), activation=activation), pixels(3, 5), pixels(3, 2)
    assert [layer.out_features for layer in model.encoder[::2]] == [7, 4, 3, 4]
    assert [layer.out_features for layer in model.decoder[::2]] == [3, 4, 7, 5]
    for network, value, result in (
        (model.encoder, x, torch.cat([(q := model.encode(x)).mean, q.variance.log()], -1)),
        (model.decoder, z, model.likelihood(z).base_dist.logits),
    ):
        for layer in network[:-1:2]:
            value = ACTIVATIONS[activation](linear(value, layer.weight, layer.bias))
        assert torch.allclose(linear(value, network[-1].weight, network[-1].bias), result, atol=1e-12)


def test_no_layers_are_linear():
    model, x, z = make("isotropic", hidden_dim=()), pixels(3, 5), pixels(4, 2)
    (head,), (decoder,) = model.encoder, model.decoder
    assert torch.allclose(model.encode(x).mean, x @ head.weight[:2].T + head.bias[:2])
    assert torch.allclose(model.likelihood(z).mean, z @ decoder.weight.T + decoder.bias)


def test_one_layer_has_the_names_it_always_had():
    expected = {
        f"{network}.{i}.{kind}"
        for network in ("encoder", "decoder")
        for i in (0, 2)
        for kind in ("weight", "bias")
    }
    for hidden_dim in (7, (7,)):
        assert set(make(hidden_dim=hidden_dim).state_dict()) == expected | {"prior_loc", "prior_scale"}
    torch.manual_seed(0)
    other = VAE(5, 2, (7,)).double()
    assert all(map(torch.equal, make().state_dict().values(), other.state_dict().values()))


def test_autocast_keeps_the_densities():
    """The networks compute in bfloat16, the densities in float32."""
    model, x = make(dtype=torch.float32), pixels(3, 5, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = model.encode(x)
        value = sgvb_b(model, q, x, 3)
    assert q.mean.dtype == value.dtype == torch.float32
    assert not torch.equal(q.mean, model.encode(x).mean)
    assert torch.allclose(q.mean, model.encode(x).mean, atol=0.02)


def test_gray_bernoulli_is_torchs_where_torch_takes_the_value():
    """At 0 and 1 of any type, with logits or probs, in value and in both derivatives; it expands as its base does."""
    logits = (3 * torch.randn(4, 3, dtype=torch.float64)).requires_grad_()
    x = torch.rand(3) < 0.5
    for value in (x, x.long(), x.double()):
        for parameters in ({"logits": logits}, {"probs": logits.sigmoid()}):
            found = GrayBernoulli(**parameters).log_prob(value)
            torch.testing.assert_close(found, Bernoulli(**parameters).log_prob(value.double()))
    torch.testing.assert_close(
        GrayBernoulli(logits=logits).expand((2, 4, 3)).log_prob(x.double()),
        Bernoulli(logits=logits).log_prob(x.double()).expand(2, 4, 3),
    )
    gray = torch.rand(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda t: GrayBernoulli(logits=t).log_prob(gray), logits, check_forward_ad=True
    )
    assert torch.autograd.gradgradcheck(lambda t: GrayBernoulli(logits=t).log_prob(gray), logits)


def test_gray_pixels_are_the_mean_over_binarizations():
    model, z, x = make(data_dim=3), pixels(1, 2), pixels(1, 3)
    likelihood = model.likelihood(z)
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    weights = (images * x + (1 - images) * (1 - x)).prod(-1)
    assert torch.allclose(likelihood.log_prob(x), weights @ likelihood.log_prob(images), atol=1e-12)


def test_bound_against_quadrature():
    """One latent dimension: E_q[log p(x|z)] and log p(x) by the trapezoid rule, to 1e-9 and beyond."""
    model, x = make(latent_dim=1), pixels(3, 5)
    with torch.no_grad():
        q = model.encode(x)
        z = torch.linspace(-12, 12, 20001, dtype=torch.float64)[:, None, None].expand(-1, 3, 1)
        step = 24 / 20000
        log_likelihood = model.likelihood(z).log_prob(x)
        reconstruction = (q.log_prob(z).exp() * log_likelihood).sum(0) * step
        divergence = (q.log_prob(z).exp() * (q.log_prob(z) - model.prior.log_prob(z))).sum(0) * step
        evidence = ((model.prior.log_prob(z) + log_likelihood).exp().sum(0) * step).log()

        n = 100_000
        torch.manual_seed(0)
        terms = elbo_terms(model, q, x, n)
        assert torch.allclose(terms.kl, divergence, atol=1e-9)
        spread = model.likelihood(q.sample((n,))).log_prob(x).std(0) / math.sqrt(n)
        assert ((terms.reconstruction - reconstruction).abs() < 5 * spread).all()
        at_mean = model.likelihood(q.mean).log_prob(x)  # what a decoder without noise would give
        assert not ((at_mean - reconstruction).abs() < 5 * spread).all()
        assert (reconstruction - divergence < evidence).all()
        estimate = log_evidence(model, q, x, n)
        assert ((estimate.value - evidence).abs() < 5 * estimate.standard_error + 1e-9).all()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "isotropic"])
@pytest.mark.parametrize("bound", [sgvb_a, sgvb_b])
def test_gradients(likelihood, bound):
    model, x = make(likelihood, hidden_dim=3), pixels(2, 5)
    names, values = zip(*model.named_parameters(), strict=True)

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return -bound(self.model, self.model.encode(x), x, 3).mean()

    def f(*parameters):
        torch.manual_seed(0)
        named = {f"model.{name}": value for name, value in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Loss(), named, (x,))

    assert torch.autograd.gradcheck(f, values)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "isotropic"])
@pytest.mark.parametrize("leading", [(), (3,), (4, 3), (2, 4, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(likelihood, leading, dtype):
    model = make(likelihood, dtype)
    q = model.encode(pixels(*leading, 5, dtype=dtype))
    assert q.batch_shape == leading and q.event_shape == (2,) and q.mean.dtype == dtype
    p = model.likelihood(pixels(*leading, 2, dtype=dtype))
    assert p.batch_shape == leading and p.event_shape == (5,) and p.mean.dtype == dtype
    assert model.prior.sample().dtype == dtype
    assert p.sample().shape == (*leading, 5)


def test_many_samples_are_one_by_one():
    model, z = make(), pixels(6, 4, 2)
    together = model.likelihood(z).mean
    assert torch.allclose(together, torch.stack([model.likelihood(row).mean for row in z]), atol=1e-14)


def test_meta_device():
    with torch.device("meta"):
        model = VAE(784, 20)
        x = torch.rand(10, 784)
    assert sgvb_b(model, model.encode(x), x, 3).shape == (10,)
    assert model.prior.sample().is_meta


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "isotropic"])
def test_no_tensor_is_made_on_another_device(likelihood):
    """All but the drawing of z, which fake tensors cannot do without a GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model = VAE(6, 2, 4, likelihood)
        for module in model.modules():  # model.to("cuda") would look for a GPU
            for tensors in (module._parameters, module._buffers):
                for name, value in tensors.items():
                    if value is None:
                        continue
                    tensors[name] = torch.empty(value.shape, device="cuda")
        x, z = torch.empty(10, 6, device="cuda"), torch.empty(3, 10, 2, device="cuda")
        q = model.encode(x)
        for value in (
            model.likelihood(z).log_prob(x),
            model.prior.log_prob(z),
            q.log_prob(z),
            kl_divergence(q, model.prior),
        ):
            assert value.device.type == "cuda"


def test_state_dict_restores_a_model_made_on_meta():
    source = make(dtype=torch.float32)
    with torch.device("meta"):
        target = VAE(5, 2, 7)
    target.to_empty(device="cpu").load_state_dict(source.state_dict())
    x = pixels(3, 5, dtype=torch.float32)
    assert torch.equal(source.encode(x).mean, target.encode(x).mean)
    assert torch.equal(target.prior.mean, torch.zeros(2)) and torch.equal(target.prior.stddev, torch.ones(2))


def test_dtype_changes_all_of_it():
    model = VAE(5, 2, 7).double()
    assert model.prior.mean.dtype == torch.float64
    x = pixels(3, 5)
    assert sgvb_b(model, model.encode(x), x).dtype == torch.float64


def test_repr():
    text = repr(VAE(784, 20, likelihood="gaussian"))
    assert "data_dim=784, latent_dim=20, hidden_dim=500, likelihood='gaussian', activation='tanh'" in text


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"data_dim": 0}, ValueError, "data_dim must be at least 1, got 0"),
        ({"latent_dim": 2.0}, TypeError, "latent_dim must be an int"),
        ({"hidden_dim": -1}, ValueError, "hidden_dim must be at least 1"),
        (
            {"hidden_dim": 7.0},
            TypeError,
            r"hidden_dim must be an int or a tuple of ints, .*got 7\.0 of type float",
        ),
        ({"hidden_dim": "7"}, TypeError, "hidden_dim must be an int or a tuple"),
        ({"hidden_dim": True}, TypeError, "hidden_dim must be an int or a tuple"),
        ({"hidden_dim": (7, 0)}, ValueError, r"hidden_dim\[1\] must be at least 1, got 0"),
        ({"hidden_dim": (7, 2.5)}, TypeError, r"hidden_dim\[1\] must be an int"),
        ({"likelihood": "bernouli"}, ValueError, "likelihood must be one of .*did you mean 'bernoulli'"),
        ({"activation": "sigmoid"}, ValueError, "activation must be one of 'tanh', 'relu', 'softplus'"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        VAE(**{"data_dim": 5, "latent_dim": 2, **arguments})


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: m.encode([1.0] * 5), TypeError, "x must be a torch.Tensor, got list"),
        (lambda m: m.encode(torch.rand(3, 4)), ValueError, r"x must have shape \[\.\.\., 5\].*got \(3, 4\)"),
        (lambda m: m.encode(torch.tensor(0.0)), ValueError, "x must have shape"),
        (lambda m: m.encode(pixels(3, 5)), TypeError, r"x must have the dtype .*float32, got torch.float64"),
        (lambda m: m.encode(torch.ones(3, 5, dtype=torch.int64)), TypeError, "x must have the dtype"),
        (lambda m: m.likelihood(torch.rand(3, 3)), ValueError, r"z must have shape \[\.\.\., 2\]"),
        (lambda m: m.likelihood(pixels(3, 2)), TypeError, "z must have the dtype"),
        (lambda m: sgvb_b(m, m.encode(x := torch.rand(3, 5) + 1), x), ValueError, r"x must lie in \[0, 1\]"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(make(dtype=torch.float32))
