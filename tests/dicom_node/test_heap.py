"""Memory that volumes give back is used again."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from dicom_node import heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(12_000_000, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if "keep" in sys.argv:
    heap.keep()
np.ones(12_000_000, np.float32)
print(faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not GNU's: there is no mallopt")
def test_a_volume_takes_the_pages_of_the_one_before() -> None:
    def run(*words: str) -> int:
        return int(subprocess.run([sys.executable, "-c", PROGRAM, *words], check=True, capture_output=True).stdout)

    assert run("keep") < run() / 4
