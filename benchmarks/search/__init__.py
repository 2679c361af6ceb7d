"""The laboratory of the search: real searchers and schedulers on learning curves, under a virtual clock."""

import os

# A run is one thread, so that several fit side by side and sums come out the same; numpy and torch read this once.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
