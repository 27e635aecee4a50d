"""Chapter 14: each bug is a small wrong program that a check rejects, and the right program passes that check."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wrong_versions import ALONE

pytestmark = pytest.mark.book
ROOT = Path(__file__).resolve().parents[2]
BUGS = {
    "BatchNorm probed in train mode",
    "KL with the wrong sign",
    "a constant column",
    "a warm-up that does not survive a resumed run",
    "an ELBO curve that is minus the ELBO",
    "gray pixels called a log-likelihood",
    "log-variance taken for scale or variance",
    "mean of logs for log of mean",
    "mean over pixels",
    "mean over the batch twice",
    "noise added before it is scaled",
    "sample for rsample",
    "sigmoid twice",
    "squared weights on the decoder",
    "test data in the training set",
    "the decoder is trained on the mean",
    "the dropped logarithm",
    "the last partial batch",
}
RUN = """
import json
from pathlib import Path
import nbformat
import book_rules as rules
from wrong_versions import new_namespace, run_cell, working_in
path = Path("book/14-field-guide-to-bugs.ipynb").resolve()
namespace = new_namespace()
with working_in(path.parent):
    for i, cell in rules.cells(nbformat.read(path, as_version=4), "code"):
        run_cell(cell.source, namespace, f"<cell {i}>")
blind = []
for name, check, value in [
    ("right", namespace["check_kl"], namespace["Autoencoder"]().kl),
    ("blind", lambda kl: None, namespace["wrong_sign"]),
]:
    try:
        namespace["compare"](name, check, value, value)
    except RuntimeError as error:
        blind.append(str(error))
print(json.dumps({"caught": namespace["caught"], "blind": blind}))
"""


def test_every_bug_is_caught_and_a_blind_check_is_noticed():
    done = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | ALONE | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["caught"]) == BUGS
    assert len(result["blind"]) == 2
