"""Every method of a stage on the same simulated heads: how near it comes, and what it costs.

    python -m benchmarks.methods [--stage NAME] [--method NAME …] [--scene NAME …] [--write]

In the chain: the default recipe from raw phase with this stage's method changed and its settings at their defaults
(`tgv` takes the total field, with no background removed).  For inversion also on a perfect local field: the truth's,
without noise, in the whole brain.  --write puts the table where docs/methods.md has it (then `make docs`).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.accuracy import load_recipe, score
from benchmarks.document import ROOT
from reconstruction import Maps, Recipe, Reference, reconstruct, stage
from tests.simulation.head import SimulatedHead
from tests.simulation.scenes import SCENES, scene

SWAPPED = ("unwrap", "combine", "background", "inversion")
"""Stages whose methods can be told apart by χ."""

ONE_STEP = ("tgv",)
"""Inversions that take the total field."""

COLUMNS = ("scene", "method", "perfect field: error %", "slope", "CPU s", "whole chain: error %", "slope", "CPU s")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--stage", choices=SWAPPED, default="inversion", help="default: inversion")
    parser.add_argument("--method", nargs="+", metavar="NAME", help="default: all of the stage")
    parser.add_argument("--scene", nargs="+", choices=tuple(SCENES), default=["quick"], metavar="NAME",
                        help=f"one or more of {', '.join(SCENES)} (default: quick)")  # fmt: skip
    parser.add_argument("--write", action="store_true", help="into docs/")
    options = parser.parse_args(arguments)
    rows = [_row(*COLUMNS), _row(*["---"] * len(COLUMNS))]
    print(*rows, sep="\n", flush=True)
    for name in options.scene:
        head = scene(name)
        usual = reconstruct(head.acquisition, load_recipe("default"))
        for method in options.method or stage.methods(options.stage):
            cells = ["", "", ""]
            if options.stage == "inversion":
                cells = measured(head, *on_perfect_field(head, usual, method))
            chain = in_the_chain(head, options.stage, method)
            rows.append(_row(name, method, *cells, *measured(head, *chain)))
            print(rows[-1], flush=True)
    if options.write:
        table = ROOT / "docs" / "measured" / f"{options.stage}.md"
        table.parent.mkdir(exist_ok=True)
        table.write_text("\n".join(rows) + "\n", encoding="utf-8")
        print(f"Written: {table.relative_to(ROOT)}")
    return 0


def on_perfect_field(head: SimulatedHead, usual: Maps, method: str) -> tuple[Maps, float]:
    """The inversion of the truth's own local field in the whole brain, and the CPU seconds of the inversion alone.

    usual: the maps of the default recipe, whose magnitude and R2* go with it.  Noise is 1/magnitude, of any unit: of
    the local field there is none.
    """
    brain = head.brain_mask
    noise = np.where(brain, NOISE_PPM * np.median(usual.magnitude[brain]) / usual.magnitude, np.inf)
    data: dict[str, Any] = {
        "local_field": head.local_field(),
        "noise": noise.astype(np.float32),
        "mask": brain,
        "magnitude": usual.magnitude,
        "r2star": usual.r2star,
        "geometry": usual.geometry,
        "echo_times": head.acquisition.echo_times,
        "larmor_frequency": head.acquisition.larmor_frequency,
    }
    began = time.process_time()
    found = stage.run("inversion", method, stage.defaults("inversion", method), data)
    spent = time.process_time() - began
    chi, mask = found if isinstance(found, tuple) else (found, brain)
    nowhere = Reference("none", np.zeros_like(brain), 0.0, 0.0)
    return replace(
        usual, chi=chi, local_field=data["local_field"], mask=mask, brain_mask=brain, reference=nowhere
    ), spent


NOISE_PPM = 1e-3
"""σ of the typical voxel: five echoes at 3 T with an SNR of 60."""


def in_the_chain(head: SimulatedHead, name: str, method: str) -> tuple[Maps, float]:
    """The default recipe with one method changed, and the CPU seconds of the whole."""
    recipe = load_recipe("default")
    changed = {name: {"method": method}}
    if name == "inversion" and method in ONE_STEP:
        changed["background"] = {"method": "none"}
    began = time.process_time()
    maps = reconstruct(head.acquisition, Recipe.from_mapping(recipe.as_mapping() | changed))
    return maps, time.process_time() - began


def measured(head: SimulatedHead, maps: Maps, seconds: float) -> list[str]:
    found = score(head, maps)
    return [f"{found.detrended:.1f}", f"{found.slope:.3f}", f"{seconds:.1f}"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
