#!/usr/bin/env bash
# What needs a GPU, in under six minutes, on a bare machine with Python and a torch that has CUDA:
#
#     tools/gpu_check.sh [--dry-run]
#
# the tests marked gpu, and images per second beside other packages, into benchmarks/results/training-<GPU>.json.
# --dry-run does the same on the CPU with next to nothing to compute: it shows that the script itself works.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
python="${PYTHON:-python}"

dry_run=false
case "${1:-}" in
  "") ;;
  --dry-run) dry_run=true ;;
  *) echo "usage: tools/gpu_check.sh [--dry-run]" >&2; exit 2 ;;
esac

results="${RESULTS:-benchmarks/results}"
if $dry_run; then
  VAETUT_GPU_DEVICE=cpu "$python" -m pytest -q -p no:cacheprovider tests/gpu -m gpu
  results="$(mktemp -d)"
  trap 'rm -rf "$results"' EXIT
  "$python" benchmarks/training.py --rounds 1 --threads 1 --images 200 --skip costs \
    --batch-sizes 100 --only pytorch-examples --json "$results/dry-run.json"
  test -s "$results/dry-run.json"
  echo "dry run: all right"
  exit
fi

"$python" - <<'PYTHON'
import sys
import torch
if not torch.cuda.is_available():
    sys.exit("no CUDA device here, or a torch without CUDA; tools/gpu_check.sh --dry-run runs on the CPU")
print(torch.__version__, torch.cuda.get_device_name())
PYTHON
name="$("$python" -c 'import re, torch; print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()))')"
timeout 200 "$python" -m pytest -q -p no:cacheprovider tests/gpu -m gpu
peers=("vaetut, compiled" pytorch-examples)
if "$python" -c 'import pyro' 2>/dev/null; then peers+=(pyro); else echo "pyro is not installed here, and left out"; fi
timeout 150 "$python" benchmarks/training.py --device cuda --batch-sizes 100 1000 --images 20000 --rounds 3 \
  --threads 4 --skip costs --only "${peers[@]}" --json "$results/training-$name.json"
