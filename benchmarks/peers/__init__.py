"""The same VAE in other packages, each a program that `benchmarks/training.py` starts in a process of its own."""
