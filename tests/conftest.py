"""No profile of the user's, and one thread per process: tests run side by side, and small tensors gain nothing."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# What the person at this machine keeps about it must not decide a test.
os.environ["COMPUTE_AWARENESS_PROFILE"] = ""
