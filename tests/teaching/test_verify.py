"""`verify` accepts what holds, rejects what does not, and prints the same line everywhere."""

import math
import os
import subprocess
import sys

import pytest
import torch

from vaetut import VerificationError, verify


def test_prints_one_line_with_rounded_numbers(capsys):
    verify("eq-a", torch.tensor([1 / 3, 2.0]), [1 / 3, 2], tolerance=1e-6)
    assert capsys.readouterr().out == "✓ eq-a    left 0.3333, …    right 0.3333, …    all 2 equal to 1e-6\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (-1e-17, "0.0000"),
        (-0.00001, "-1.000e-05"),
        (1234567.0, "1.235e+06"),
        (-9.30214, "-9.3021"),
    ],
)
def test_numbers(capsys, value, shown):
    verify("eq-a", value, value)
    assert f"left {shown}    right {shown}" in capsys.readouterr().out


def test_no_negative_zero_from_rounding(capsys):
    verify("eq-a", 1.0, 1.0 + 1e-12)
    verify("eq-b", torch.tensor([0.0, -1e-12]), torch.zeros(2))
    assert "-0.0" not in capsys.readouterr().out


def test_exact_tolerance_is_absolute_below_one_and_relative_above():
    verify("eq-a", 1e-3 + 0.9e-9, 1e-3)
    verify("eq-a", 1e6 * (1 + 0.9e-9), 1e6)
    with pytest.raises(VerificationError):
        verify("eq-a", 1e-3 + 1.1e-9, 1e-3)
    with pytest.raises(VerificationError):
        verify("eq-a", 1e6 * (1 + 1.1e-9), 1e6)


def test_one_bad_element_is_enough_and_is_named():
    left = torch.zeros(7)
    left[4] = 1e-3
    with pytest.raises(VerificationError, match=r"eq-a: .*element 4 of 7"):
        verify("eq-a", left, torch.zeros(()))


def test_monte_carlo_sides_may_be_five_standard_errors_apart():
    verify("eq-a", 1.049, 1.0, standard_error=0.01)
    with pytest.raises(VerificationError):
        verify("eq-a", 1.051, 1.0, standard_error=0.01)


def test_a_standard_error_lends_no_slack_to_the_exact_tolerance():
    with pytest.raises(VerificationError):
        verify("eq-a", 1.1, 1.0, standard_error=0.01, tolerance=1.0)


@pytest.mark.parametrize(
    ("relation", "left", "right"), [("<=", 1.0, 2.0), (">=", 2.0, 1.0), ("<=", 1.0, 1.0)]
)
def test_inequalities(capsys, relation, left, right):
    verify("eq-a", left, right, relation=relation)
    assert f"left {relation} right" in capsys.readouterr().out


@pytest.mark.parametrize(("relation", "left", "right"), [("<=", 2.0, 1.0), (">=", 1.0, 2.0)])
def test_broken_inequalities(relation, left, right):
    with pytest.raises(VerificationError, match=f"must satisfy left {relation} right"):
        verify("eq-a", left, right, relation=relation)


def test_failure_prints_nothing(capsys):
    with pytest.raises(VerificationError):
        verify("eq-a", 1.0, 2.0)
    assert capsys.readouterr().out == ""


def test_a_wrong_formula_is_rejected():
    """The usual slips move an answer by far more than the tolerance."""
    entropy_of_standard_normal = 0.5 * math.log(2 * math.pi * math.e)
    verify("eq-entropy", 1.4189385332046727, entropy_of_standard_normal)
    for wrong in (
        -entropy_of_standard_normal,
        0.5 * math.log(2 * math.pi),
        entropy_of_standard_normal / math.log(2),
    ):
        with pytest.raises(VerificationError):
            verify("eq-entropy", wrong, entropy_of_standard_normal)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_without_a_check_mark_is_no_error(encoding):
    code = "import vaetut; vaetut.verify('eq-a', [1, 2], [1, 2]); vaetut.verify('eq-b', -1.5, -1.5)"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    first, second = done.stdout.decode(encoding).splitlines()
    assert first.split(" ", 1)[1].startswith("eq-a    left 1.0000, ")
    assert second.split(" ", 1)[1] == "eq-b    left -1.5000    right -1.5000    equal to 1e-9"


def test_a_device_without_float64_is_left_before_converting():
    """As on Apple's GPUs: a tensor that is not on the CPU yet must not become float64."""

    class Device(torch.overrides.TorchFunctionMode):
        def __init__(self, value):
            super().__init__()
            self.left = not value

        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.cpu:
                self.left = True
            wide = torch.float64 in args or torch.float64 in (kwargs or {}).values()
            if wide and not self.left:
                raise TypeError("this device has no float64")
            return function(*args, **(kwargs or {}))

    value = torch.tensor([1.0, 2.0])
    with Device(True) as device:
        with pytest.raises(TypeError, match="no float64"):
            torch.as_tensor(value, dtype=torch.float64)
        device.left = False
        verify("eq-a", value, 1.0 * value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    """1 and 1.0001 are the same number in it, and the check would print "equal to 1e-9"."""
    one = torch.ones(2, dtype=torch.float64)
    assert ((one + 1e-4).to(dtype) == one.to(dtype)).all()
    for sides in ((one, (one + 1e-4).to(dtype)), (one.to(dtype), one)):
        with pytest.raises(TypeError, match=rf"must not be rounded to half precision, got {dtype}"):
            verify("eq-a", *sides)
