"""What the quality figures of whole and of spoilt heads are, beside the error of each.

    python -m benchmarks.grade [--scene NAME …] [--recipe NAME_OR_FILE …]
    python -m benchmarks.grade --whole [--recipe NAME_OR_FILE …]

Of each scene the head as it is and spoilt one way at a time; --whole: heads of three fields and three sizes of voxels,
every one of a seed of its own, and a head that is cut to slabs.  The bounds in `reconstruction/grade.py` were drawn
between these.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain, product
from typing import Any

from benchmarks.accuracy import load_recipe, score
from reconstruction import Acquisition, NotReconstructible, Recipe, reconstruct
from reconstruction.grade import BOUNDS
from tests.simulation.head import SimulatedHead, simulate_head
from tests.simulation.scenes import FIVE_ECHOES, SCENES, SKYRA_3T, scene
from tests.simulation.spoilt import SPOILT

Spoilt = Iterator[tuple[str, SimulatedHead, list[tuple[str, Acquisition]]]]
"""A head with its name, and what is made of it, each with how."""

FIELDS: dict[str, dict[str, Any]] = {
    "1.5T": {name: SCENES["1.5T"][name] for name in ("larmor_frequency", "echo_times", "snr")},
    "3T": {"larmor_frequency": SKYRA_3T, "echo_times": FIVE_ECHOES, "sharpening": 2.5},
    "3T-2-echoes": {"larmor_frequency": SKYRA_3T, "echo_times": (6e-3, 14e-3)},
    "7T": {name: SCENES["7T"][name] for name in ("larmor_frequency", "echo_times")},
}
VOXELS: dict[str, dict[str, Any]] = {
    "2 mm": {"shape": (96, 120, 80), "voxel_size": (2.0, 2.0, 2.0)},
    "2.5 mm": {"shape": (80, 96, 64), "voxel_size": (2.5, 2.5, 2.5)},
    "3 mm": {"shape": (64, 80, 52), "voxel_size": (3.0, 3.0, 3.0)},
}
SLABS_MM = (
    *((height, 8.0) for height in (12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 80, 96, 112)),
    *((height, -height / 2) for height in (64, 80, 96)),
    *((height, height / 2 - 12) for height in (64, 80, 96)),
)
"""Heights, and where their middles lie: through the basal ganglia; and slabs that end in them, from below and above."""


def heads() -> Iterator[tuple[str, SimulatedHead]]:
    """Whole heads of every field and size of voxels."""
    for seed, (field, voxel) in enumerate(product(FIELDS, VOXELS), start=21):
        yield f"{field} {voxel}", simulate_head(**FIELDS[field], **VOXELS[voxel], seed=seed)


def slabs() -> Iterator[tuple[str, SimulatedHead]]:
    """A head of which so many millimetres were acquired."""
    for height, middle in SLABS_MM:
        shape, voxel = (80, 96, height // 2), (2.4, 2.4, 2.0)
        yield f"{height} mm at {middle:+g}", simulate_head(shape, voxel, centre_mm=(0.0, -18.0, middle))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grade", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scene", nargs="+", choices=tuple(SCENES), default=["quick"], metavar="NAME",
                        help=f"one or more of {', '.join(SCENES)} (default: quick)")  # fmt: skip
    parser.add_argument("--whole", action="store_true", help="whole heads and slabs instead, some minutes")
    parser.add_argument("--recipe", nargs="+", default=["default"], help="names in config/recipes or TOML files")
    options = parser.parse_args(arguments)
    recipes = [load_recipe(recipe) for recipe in options.recipe]
    columns = " ".join(f"{name:>17}" for name in BOUNDS)
    print(f"{'head':18} {'spoilt':20} {'recipe':10} {'grade':7} {'slope':>6} {'worst':>5} {'detr %':>7} {columns}")
    for name, head, spoilt in _whole() if options.whole else _spoilt(options.scene):
        for (how, acquisition), recipe in product(spoilt, recipes):
            _print(f"{name:18} {how:20} {recipe.name:10}", head, acquisition, recipe)
    return 0


def _whole() -> Spoilt:
    for name, head in chain(heads(), slabs()):
        yield name, head, [("whole", head.acquisition)]


def _spoilt(names: list[str]) -> Spoilt:
    for name in names:
        head = scene(name)
        yield name, head, [(how, spoil(head)) for how, spoil in SPOILT.items()]


def _print(words: str, head: SimulatedHead, acquisition: Acquisition, recipe: Recipe) -> None:
    try:
        maps = reconstruct(acquisition, recipe)
    except NotReconstructible as error:
        print(f"{words} refused: {error}", flush=True)
        return
    found = score(head, maps)
    errors = f"{found.slope:6.2f} {found.worst_ppb:+5.0f} {found.detrended:7.0f}"
    figures = " ".join(f"{maps.quality.get(figure, float('nan')):17.3g}" for figure in BOUNDS)
    print(f"{words} {maps.grade:7} {errors} {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
