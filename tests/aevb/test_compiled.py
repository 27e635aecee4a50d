"""The captured step of a GPU, on the CPU: a recording that calls the function again takes the place of a graph."""

import pytest
import torch

from vaetut.aevb import train
from vaetut.aevb.compiled import _reason, can_be_captured, captured, undone
from vaetut.aevb.step import Objective
from vaetut.bounds import sgvb_b
from vaetut.models import VAE

CPU = torch.device("cpu")


class Recording:
    """What `CudaGraphs` is on a GPU: it keeps the tensors of the first call, and fills the same ones at each replay."""

    device = CPU

    def __init__(self):
        self.recorded = 0

    def warm_up(self, function):
        function()

    def record(self, function):
        self.recorded += 1
        result = torch.zeros(0)

        def replay():
            value = function()
            result.resize_(value.shape).copy_(value)

        return replay, result


def made():
    torch.manual_seed(0)
    objective = Objective(VAE(6, 2, 5), sgvb_b, 1, torch.rand(50, 6), "dynamic")
    return objective, torch.optim.Adam(objective.parameters(), 0.01, capturable=False)


def step_of(objective, optimizer):
    def step(minibatch):
        bound = objective(minibatch)
        optimizer.zero_grad()
        (-bound.mean()).backward()
        optimizer.step()
        return bound.detach()

    return step


def run(step, objective, optimizer):
    torch.manual_seed(1)
    bounds = torch.cat([step(index) for _ in range(3) for index in torch.randperm(50).split(20)])
    states = [value for values in optimizer.state.values() for value in values.values()]
    return [bounds, *(p.detach() for p in objective.parameters()), *states, torch.get_rng_state()]


def test_a_captured_step_is_the_step():
    """Warm-ups leave no trace: not in the parameters, not in Adam's state, not in the random numbers."""
    objective, optimizer = made()
    expected = run(step_of(objective, optimizer), objective, optimizer)
    objective, optimizer = made()
    graphs = Recording()
    found = run(captured(step_of(objective, optimizer), objective, optimizer, graphs), objective, optimizer)
    assert graphs.recorded == 2  # minibatches of 20 and of 10
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


def test_undone():
    objective, optimizer = made()
    step = step_of(objective, optimizer)
    step(torch.arange(20))
    before = [*objective.state_dict().values(), *(v for s in optimizer.state.values() for v in s.values())]
    values = [value.clone() for value in before]
    state = torch.get_rng_state()
    with undone(objective, optimizer, CPU):
        step(torch.arange(20))
        assert not all(map(torch.equal, before, values))
    assert all(map(torch.equal, before, values)) and torch.equal(torch.get_rng_state(), state)


def test_which_optimizers_are_captured():
    p = [torch.nn.Parameter(torch.zeros(2))]
    tensor_rate = torch.optim.Adam(p, torch.tensor(0.1), capturable=True)
    assert can_be_captured(torch.optim.AdamW(p, capturable=True)) and can_be_captured(tensor_rate)
    assert not can_be_captured(torch.optim.Adam(p)) and not can_be_captured(torch.optim.SGD(p, 0.1))
    hooked = torch.optim.Adam(p, capturable=True)
    hooked.register_step_post_hook(lambda *_: None)
    scheduled = torch.optim.Adam(p, capturable=True)
    torch.optim.lr_scheduler.StepLR(
        scheduled, 10
    )  # whose rate is a number, and would be a constant of the graph
    torch.optim.lr_scheduler.StepLR(tensor_rate, 10)
    assert not can_be_captured(hooked) and not can_be_captured(scheduled) and can_be_captured(tensor_rate)


def test_no_compiler_is_no_fault_of_the_model():
    missing = RuntimeError("backend failed")
    missing.__cause__ = type("InvalidCxxCompiler", (RuntimeError,), {})("No working C++ compiler found")
    assert "needs a C++ compiler such as g++" in _reason(missing, CPU)
    assert "Triton" in _reason(missing, torch.device("cuda"))
    assert "must be False for this model and bound" in _reason(RuntimeError("unsupported"), CPU)


@pytest.mark.slow
def test_many_runs_of_a_process_compile_each_for_itself():
    """More than the number of times that one function may be compiled again."""

    def run():
        torch.manual_seed(0)
        model = VAE(6, 2, 5)
        return train(
            model, torch.rand(30, 6, generator=torch.Generator().manual_seed(1)), epochs=1, compile=True
        )

    assert len({tuple(run().train) for _ in range(10)}) == 1
