"""The checks of arguments: what they accept, what they raise, and for whom they are switched off."""

import asyncio
import threading

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from vaetut._support.validate import (
    any_true,
    checks,
    finite,
    float_tensor,
    positive_int,
    real_number,
    values_are_checked,
)

YES, NO = torch.tensor([False, True]), torch.tensor([False, False])
PATIENCE = 600  # seconds, so long that only a deadlock takes longer


def test_checks_nest_and_end_with_their_block():
    assert values_are_checked() and any_true(YES) and not any_true(NO)
    with checks(False):
        assert not values_are_checked() and not any_true(YES)
        with checks(True):
            assert any_true(YES)
        assert not any_true(YES)
    assert any_true(YES)
    with pytest.raises(RuntimeError, match="inside"), checks(False):
        raise RuntimeError("inside")
    assert any_true(YES)


@pytest.mark.parametrize("wrong", [0, 1, None, "no"])
def test_checks_takes_a_bool(wrong):
    with pytest.raises(TypeError, match="enabled must be True or False"), checks(wrong):
        pass


def test_two_threads_do_not_share_the_switch():
    """Their blocks overlap, and end in the wrong order: a global of the process would stay off for good."""
    inside, leave, seen = threading.Event(), threading.Event(), []

    def other():
        with checks(False):
            inside.set()
            leave.wait(PATIENCE)
            seen.append(any_true(YES))
        seen.append(any_true(YES))

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    assert inside.wait(PATIENCE)
    assert any_true(YES)  # while the other's checks are off
    with checks(False):
        leave.set()
        thread.join(PATIENCE)
    assert seen == [False, True] and any_true(YES)


def test_two_tasks_do_not_share_the_switch():
    async def off(ready, leave):
        with checks(False):
            ready.set()
            await leave.wait()
            return any_true(YES)

    async def both():
        ready, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(off(ready, leave))
        await ready.wait()
        here = any_true(YES)
        leave.set()
        return here, await task

    assert asyncio.run(both()) == (True, False)


def half(x):
    return x if any_true(x > 0) else x / 2


def test_tensors_without_values_are_not_checked():
    x = torch.ones(3)
    assert not any_true(torch.ones(3, dtype=torch.bool, device="meta"))
    with FakeTensorMode():
        assert not any_true(torch.ones(3) > 0)
    halves = torch.full((3,), 0.5)
    assert torch.equal(torch.func.vmap(half)(x), halves)
    assert torch.equal(torch.func.vmap(torch.func.grad(half))(x), halves)
    assert torch.equal(torch.func.vmap(torch.func.vmap(half))(x.unsqueeze(0)), halves.unsqueeze(0))
    for mode in ("real", "fake", "symbolic"):
        assert torch.equal(make_fx(half, tracing_mode=mode)(x)(x), x / 2)
    assert torch.equal(torch.compile(half, backend="eager", fullgraph=True)(x), x / 2)
    # where there are values, they are looked at: under grad, jvp and jacfwd too
    assert torch.func.grad(half)(torch.tensor(1.0)) == 1
    assert torch.func.jvp(half, (torch.tensor(1.0),), (torch.tensor(1.0),))[1] == 1


def test_a_compiled_function_may_hold_the_switch():
    def f(x):
        with checks(False):
            return half(x)

    assert torch.equal(torch.compile(f, backend="eager")(torch.ones(3)), torch.full((3,), 0.5))
    assert any_true(YES)


class Broken(torch.Tensor):
    """A mask of which the device gives an error when it is read."""

    error = RuntimeError("CUDA error: device-side assert triggered")

    def any(self):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        torch.OutOfMemoryError("CUDA out of memory"),
        *(
            [torch.AcceleratorError("CUDA error: device-side assert")]
            if hasattr(torch, "AcceleratorError")
            else []
        ),
    ],
)
def test_an_error_of_the_device_is_not_swallowed(error):
    mask = YES.as_subclass(Broken)
    mask.error = error
    with pytest.raises(type(error), match="CUDA"):
        any_true(mask)


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint8, np.intp])
def test_integers_of_numpy_are_integers(kind):
    found = positive_int(kind(7), "n")
    assert found == 7 and type(found) is int
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        positive_int(kind(0), "n")


@pytest.mark.parametrize(
    "wrong", [True, np.True_, 2.0, np.float64(2.0), "2", None, torch.tensor(2), np.array([2])]
)
def test_what_is_no_integer(wrong):
    with pytest.raises(TypeError, match=r"n must be an int of at least 1, got .* of type"):
        positive_int(wrong, "n")


@pytest.mark.parametrize("value", [2, 2.5, np.float64(2.5), np.float32(2.5), np.int64(2)])
def test_real_numbers_become_floats(value):
    found = real_number(value, "rate")
    assert found == value and type(found) is float


@pytest.mark.parametrize("wrong", [True, np.True_, "2", None, 2j, torch.tensor(2.0)])
def test_what_is_no_real_number(wrong):
    with pytest.raises(TypeError, match=r"rate must be a positive number, got .* of type"):
        real_number(wrong, "rate", "a positive number")


def test_tensors():
    with pytest.raises(TypeError, match=r"x must have dtype .*got torch.bfloat16; x.float\(\) converts it"):
        float_tensor(torch.ones(2, dtype=torch.bfloat16), "x")
    large = torch.full((4,), 3e38)
    assert finite(large, "x") is large  # though their sum is not
    with pytest.raises(ValueError, match="x must be finite, got NaN or infinity in 1 of 2 values"):
        finite(torch.tensor([1.0, float("nan")]), "x")
