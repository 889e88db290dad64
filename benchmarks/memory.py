"""The memory that a job is reckoned to hold beside what it holds: the line in `dicom_node.memory` against peaks.

    python -m benchmarks.memory [--case X Y Z ECHOES]… [--recipe NAME_OR_FILE]…

Each case is a head written as files and a run of `qsm-node reconstruct` in a process of its own (`benchmarks.speed`,
whose files it shares).  A run that holds more than was reckoned is marked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from benchmarks.speed import Shape, measure, study
from dicom_node.memory import GB, estimate

CASES = (
    (96, 96, 64, 3),
    (128, 128, 64, 3),
    (128, 128, 64, 8),
    (192, 192, 96, 5),
    (192, 192, 96, 10),
    (256, 256, 128, 5),
)
"""Voxels along each axis, and echoes."""
KILOBYTE = 1024 / 1000
"""`speed` counts the kernel's kB, of 1024 bytes, as 1000."""


@dataclass(frozen=True)
class Peak:
    """reckoned, measured: GB."""

    shape: Shape
    echoes: int
    recipe: str
    reckoned: float
    measured: float

    def __str__(self) -> str:
        size = " × ".join(map(str, self.shape))
        mark = "" if self.measured <= self.reckoned else "  too little"
        return f"{size:16} {self.echoes:6} {self.recipe:10} {self.reckoned:8.2f} {self.measured:8.2f}{mark}"


def peaks(cases: Sequence[Sequence[int]], recipes: Sequence[str], cache: Path) -> Iterator[Peak]:
    for x, y, z, echoes in cases:
        shape = (x, y, z)
        for recipe in recipes:
            stages = measure(study(shape, echoes, cache), cache / "out", recipe, False, None)
            measured = max(stage.peak for stage in stages) * KILOBYTE
            yield Peak(shape, echoes, recipe, estimate(prod(shape), echoes) / GB, measured)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--case", type=int, nargs=4, action="append", metavar="N", help=f"default: {CASES}")
    parser.add_argument("--recipe", action="append", help="default: the node's default")
    parser.add_argument("--cache", type=Path, default=Path("benchmark-output/speed"), help="keeps the heads' files")
    options = parser.parse_args(arguments)
    print(f"{'voxels':16} {'echoes':>6} {'recipe':10} {'reckoned':>8} {'peak GB':>8}", flush=True)
    for peak in peaks(options.case or CASES, options.recipe or ["default"], options.cache):
        print(peak, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
