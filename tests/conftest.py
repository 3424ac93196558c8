"""One thread per process: the tests run side by side (pytest-xdist), and small tensors gain nothing from more."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
