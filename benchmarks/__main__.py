"""`make bench`: simulated heads through a recipe: what it costs, and how near it comes to the truth.

    python -m benchmarks [--all] [--recipe NAME_OR_FILE] [--out FOLDER]

The columns are those of `benchmarks.accuracy.Scores`, after seconds and peak memory (GB) of the reconstruction alone.
Then what the whole of `qsm-node reconstruct` costs at 256 × 256 × 128 voxels, stage by stage (`benchmarks.speed`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import accuracy, speed
from tests.simulation.scenes import SCENES

STANDARD = ("quick", "sharp-3T")
"""A coarse head, and one of 1.5 mm with the edges of a person's: one to two minutes on two cores, simulation included.
All scenes take some ten."""

COLUMNS = """
s, GB      time and peak memory of the reconstruction, without the simulation
covered    part of the brain inside the brain mask; valid: part where χ is given; outside: part of the mask beyond
           the skull
slope      of the deep nuclei's means on their truth, icept: its intercept (ppb); beside it the worst nucleus
rmse       of χ in % of the truth's own deviation, detr: with the best scale taken out
field      median error of the total field, local: RMS error of the local field (ppb); R2*: median error
A line below a scene tells the mean of each lesion that it has.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Cost and accuracy on simulated heads.")
    parser.add_argument("--all", action="store_true", help=f"every scene: {', '.join(SCENES)}")
    parser.add_argument("--recipe", default="default", help="a name in config/recipes or a TOML file")
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"), help="folder for the pictures")
    options = parser.parse_args(arguments)
    scenes = tuple(SCENES) if options.all else STANDARD
    print(f"Simulated heads: {', '.join(scenes)}\nRecipe: {options.recipe}\n{COLUMNS}", flush=True)
    code = accuracy.main(["--scene", *scenes, "--recipe", options.recipe, "--out", str(options.out)])
    print(flush=True)
    return code or speed.main(["--recipe", options.recipe, "--cache", str(options.out / "speed")])


if __name__ == "__main__":
    sys.exit(main())
