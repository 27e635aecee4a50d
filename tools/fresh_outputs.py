"""A pytest plugin for nbval: pictures are compared too, and a notebook has a budget of processor time.

    PYTHONPATH=tools python -m pytest -p fresh_outputs --nbval book

nbval executes every cell and compares the text that it puts out; it passes over pictures. Here the fresh ones are
compared with the stored ones, and so are the drawings inside of an explorer. On one machine they agree to the byte.
Another processor may round the edge of a line differently, so a few pixels or numbers may differ; what was moved,
drawn in another color or left out is noticed. As with text, a cell tagged `nbval-ignore-output` is not compared.
"""

import base64
import io
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import psutil
from nbval.plugin import IPyNbCell, IPyNbFile
from PIL import Image, UnidentifiedImageError

# A pixel differs if one of its channels does by more than a quarter of the range: more than the edge of a line that
# is rounded differently. One in a thousand may: a line moved by its own width changes several times as many, and the
# points of a network that was trained on another processor fewer.
LEVELS = 64
SHARE = 1 / 1000
# Processor time of a notebook's kernel and of the processes that it started: what 45 s on two cores are. The slowest
# chapter takes a third of it; the rest is for a busy machine, which counts up to twice as much for the same work.
SECONDS = 90
PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/\n]*={0,2}")
DRAWINGS = re.compile(r"\n(\[.*\])\);\n</script>")  # the last line of an explorer's script


def pictures(outputs: Iterable[Any]) -> list[bytes]:
    """Every PNG in a cell's outputs, in order, whether it is an output of its own or inside of HTML."""
    texts = [
        str(output["data"][kind])
        for output in outputs
        for kind in ("image/png", "text/html")
        if kind in output.get("data", {})
    ]
    return [base64.b64decode(png) for text in texts for png in PNG.findall(text)]


def difference(fresh: bytes, stored: bytes) -> str:
    """How two PNG files differ, in words; empty if they show the same."""
    if fresh == stored:
        return ""
    try:
        a, b = (np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), dtype=int) for png in (fresh, stored))
    except (UnidentifiedImageError, OSError):
        return "one of them is no picture"
    if a.shape != b.shape:
        return f"{a.shape[1]} x {a.shape[0]} pixels, and {b.shape[1]} x {b.shape[0]} are stored"
    share = (np.abs(a - b).max(-1) > LEVELS).mean()
    return f"{share:.2%} of the pixels differ" if share > SHARE else ""


def drawings(outputs: Iterable[Any]) -> list[str]:
    """What each explorer in a cell's outputs draws from."""
    texts = [str(output["data"]["text/html"]) for output in outputs if "text/html" in output.get("data", {})]
    found = [drawing for text in texts for drawing in DRAWINGS.findall(text)]
    return [re.sub(r"[A-Za-z0-9+/]{40,}={0,2}", "", text) for text in found]  # without pictures and weights


def other_drawing(fresh: str, stored: str) -> str:
    """How two explorers' drawings differ, in words; empty if they show the same.

    Numbers are whole tenths of a pixel, from one point to the next. A curve may have a few points more or less.
    """
    if fresh == stored:
        return ""
    lengths = [len(text) for text in (fresh, stored)]
    if max(lengths) > 1.02 * min(lengths):
        return f"{lengths[0]} letters, and {lengths[1]} are stored"
    colors = [re.findall(r"#[0-9a-f]{6}\b", text) for text in (fresh, stored)]
    if set(colors[0]) != set(colors[1]):
        return "other colors"
    new, old = (list(map(int, re.findall(r"-?\d+", text))) for text in (fresh, stored))
    if len(new) == len(old):
        share = (np.abs(np.subtract(new, old, dtype=float)) > 3).mean()
        return f"{share:.2%} of the numbers differ" if share > SHARE else ""
    return ""


def stale_pictures(fresh: Iterable[Any], stored: Iterable[Any]) -> list[str]:
    """What is wrong with the stored pictures of a cell."""
    new, old = pictures(fresh), pictures(stored)
    if len(new) != len(old):
        return [f"{len(new)} pictures, and {len(old)} are stored"]
    differences = map(difference, new, old)
    wrong = [f"picture {i} of {len(new)}: {text}" for i, text in enumerate(differences, 1) if text]
    changed = map(other_drawing, drawings(fresh), drawings(stored))
    return wrong + [f"explorer {i}: {text}" for i, text in enumerate(changed, 1) if text]


compare_text = IPyNbCell.compare_outputs
stop_kernel = IPyNbFile.teardown


def compare_outputs(self: Any, test: list[Any], ref: list[Any], skip_compare: Any = None) -> bool:
    """nbval's comparison, and then the pictures."""
    if not compare_text(self, test, ref, skip_compare):
        return False
    self.comparison_traceback += stale_pictures(test, ref)
    return not self.comparison_traceback


def teardown(self: Any) -> None:
    """Stop the kernel, and say so if the notebook took more than its budget."""
    seconds = processor_seconds(self.kernel) if self.kernel is not None and self.kernel.is_alive() else 0.0
    stop_kernel(self)
    assert seconds < SECONDS, f"{self.name} takes {seconds:.0f} s of processor time, and may take {SECONDS}"


def processor_seconds(kernel: Any) -> float:
    """Processor time that a kernel has used, with that of its finished children."""
    times = psutil.Process(kernel.km.provisioner.process.pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def pytest_configure(config: Any) -> None:
    """Put the two in nbval's place; nbval has no hook for either."""
    IPyNbCell.compare_outputs = compare_outputs
    IPyNbFile.teardown = teardown
