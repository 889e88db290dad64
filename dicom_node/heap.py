"""How a process that makes maps and ends treats its memory: it keeps what it has, and seldom looks for garbage."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MOST = 2**31 - 1

SELDOM = 100_000
"""Objects more than were freed, after which Python looks for cycles: a study's headers are a million, all of them used.
"""


def keep() -> None:
    """Volumes are taken from memory that others gave back, where the kernel would clear new pages for each.

    Where the C library has no mallopt(3), or knows better, all stays as it is.  To be called before NumPy is loaded.
    """
    # Huge pages gain nothing here, and where memory is in pieces the kernel moves others' pages to make each of them.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")  # numpy.org, "Global configuration options"
    gc.set_threshold(SELDOM)
    atexit.register(gc.freeze)  # else the interpreter goes through all objects several times before it ends
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MOST)
        mallopt(M_TRIM_THRESHOLD, MOST)
