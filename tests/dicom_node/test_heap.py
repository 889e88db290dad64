"""Memory that volumes give back is used again."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

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


ADVICE = """
from dicom_node import heap
heap.keep()
import numpy as np
volume = np.ones(2**25, np.uint8)
middle, ours = volume.ctypes.data + volume.size // 2, False
for line in open("/proc/self/smaps"):
    if "-" in (place := line.split()[0]):
        first, last = (int(end, 16) for end in place.split("-"))
        ours = first <= middle < last
    elif ours and line.startswith("VmFlags:"):
        print("asked" if "hg" in line.split() else "not asked")
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="no Linux: the kernel does not tell")
def test_no_huge_pages_are_asked_for() -> None:
    """The flag hg of proc_pid_smaps(5)."""
    answer = subprocess.run([sys.executable, "-c", ADVICE], check=True, capture_output=True, text=True)
    assert answer.stdout == "not asked\n"
