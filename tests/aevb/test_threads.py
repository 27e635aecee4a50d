"""Two runs in threads of one process: each is what it is alone, and nothing of the process is changed."""

import threading

import pytest
import torch
from torch.distributions import Normal

from vaetut.aevb import train
from vaetut.bounds import sgvb_b
from vaetut.data import binarize
from vaetut.models import VAE

PATIENCE = 600  # seconds, so long that only a deadlock takes longer


def gray(n=120, dim=6):
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(1))


def run(seed):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VAE(6, 2, 5)
    history = train(model, gray(), epochs=4, batch_size=20, seed=seed, validation=gray(30))
    return history.to_dict(), torch.cat([p.detach().flatten() for p in model.parameters()])


def models():
    """Made before the threads, for making one draws random numbers."""
    made = []
    for _ in range(4):
        torch.manual_seed(0)
        made.append(VAE(6, 2, 5))
    return made


def test_overlapping_runs():
    expected = [run(seed) for seed in range(4)]
    found, ready, made = {}, threading.Barrier(4), models()

    def work(seed):
        ready.wait()
        history = train(made[seed], gray(), epochs=4, batch_size=20, seed=seed, validation=gray(30))
        found[seed] = history.to_dict()

    torch.manual_seed(123)
    wanted = torch.rand(3)
    torch.manual_seed(123)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, (history, end) in enumerate(expected):
        assert found[seed] == history
        assert torch.equal(torch.cat([p.detach().flatten() for p in made[seed].parameters()]), end)
    assert torch.equal(torch.rand(3), wanted)
    with pytest.raises(ValueError, match="must lie in"):
        binarize(torch.tensor([7.0, -3.0]))


def test_checks_of_another_thread_stay_on():
    inside, done, errors = threading.Event(), threading.Event(), []

    def bound(model, q, x, num_samples):
        if torch.is_grad_enabled():
            inside.set()
            done.wait(PATIENCE)
        return sgvb_b(model, q, x, num_samples)

    model, other = models()[:2]
    thread = threading.Thread(target=lambda: train(model, gray(), epochs=1, bound=bound), daemon=True)
    thread.start()
    assert inside.wait(PATIENCE)
    try:
        sgvb_b(other, other.encode(gray() * 255), gray() * 255)
    except ValueError as error:
        errors.append(error)
    done.set()
    thread.join()
    assert len(errors) == 1
    with pytest.raises(ValueError, match="scale"):
        Normal(0.0, torch.tensor(-1.0))


def test_a_bound_may_train_another_model():
    made = models()

    def bound(model, q, x, num_samples):
        if torch.is_grad_enabled():
            train(made[1], gray(), epochs=1)
        return sgvb_b(model, q, x, num_samples)

    with torch.random.fork_rng():
        train(made[0], gray(), epochs=1, bound=bound)
