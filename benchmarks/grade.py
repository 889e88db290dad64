"""What the quality figures of whole and of spoilt heads are, beside the error of each.

    python -m benchmarks.grade [--scene NAME …] [--recipe NAME_OR_FILE]

The bounds in `reconstruction/grade.py` were drawn between these.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.accuracy import load_recipe, score
from reconstruction import NotReconstructible, reconstruct
from reconstruction.grade import BOUNDS
from tests.simulation.scenes import SCENES, scene
from tests.simulation.spoilt import SPOILT


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grade", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scene", nargs="+", choices=tuple(SCENES), default=["quick"], metavar="NAME",
                        help=f"one or more of {', '.join(SCENES)} (default: quick)")  # fmt: skip
    parser.add_argument("--recipe", default="default", help="a name in config/recipes or a TOML file")
    options = parser.parse_args(arguments)
    recipe = load_recipe(options.recipe)
    columns = " ".join(f"{name:>15}" for name in BOUNDS)
    print(f"{'scene':12} {'spoilt':20} {'grade':7} {'slope':>6} {'detr %':>7} {columns}")
    for name in options.scene:
        head = scene(name)
        for how, spoil in SPOILT.items():
            try:
                maps = reconstruct(spoil(head), recipe)
            except NotReconstructible as error:
                print(f"{name:12} {how:20} refused: {error}", flush=True)
                continue
            found = score(head, maps)
            figures = " ".join(f"{maps.quality.get(figure, float('nan')):15.3g}" for figure in BOUNDS)
            print(f"{name:12} {how:20} {maps.grade:7} {found.slope:6.2f} {found.detrended:7.0f} {figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
