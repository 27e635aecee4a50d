"""How `benchmarks/training.py` talks to a peer: one word a line on standard input, one number a line back.

No package but numpy is imported here, so that this runs in every environment.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Epoch = Callable[[], Any]
Elbo = Callable[[], float]


def serve(make: Callable[[Any, Any, dict[str, Any]], tuple[Epoch, Elbo]]) -> None:
    """Answer "epoch" with the seconds that one epoch of training took, and "elbo" with the bound on the test images.

    Args:
        make: from the training images, the test images (numpy, ``[N, D]``) and the settings, the two functions.
    """
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    if hasattr(os, "sched_setaffinity"):  # so many cores for every peer, whatever pool of threads it makes
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings["threads"]])
    on_one_core = settings["threads"] == 1 and settings["device"] == "cpu"
    clock = time.process_time if on_one_core else time.perf_counter
    answers = os.fdopen(os.dup(1), "w")
    with contextlib.redirect_stdout(sys.stderr):  # what a package prints is no answer
        epoch, elbo = make(np.load(folder / "train.npy"), np.load(folder / "test.npy"), settings)
        for line in sys.stdin:
            start = clock()
            value = epoch() if line.strip() == "epoch" else elbo()
            answer = clock() - start if line.strip() == "epoch" else float(value)
            print(json.dumps(answer), file=answers, flush=True)
