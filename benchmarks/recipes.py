"""Every recipe on the same simulated head: what it costs, how near it comes, and what it looks like.

    python -m benchmarks.recipes [--scene NAME …] [--write]

--write puts the table and the picture of the first scene where docs/methods.md has them (then `make docs`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.accuracy import ERROR_WINDOW_PPB, RECIPES, WINDOW_PPB, Scores, load_recipe, planes, score, timed
from benchmarks.document import ROOT
from reconstruction import Maps
from tests.simulation.head import SimulatedHead
from tests.simulation.scenes import SCENES, scene

TABLE, FIGURE = ROOT / "docs" / "measured" / "recipes.md", ROOT / "docs" / "images" / "recipes.png"
FIRST = ("default", "medi0")


def names() -> list[str]:
    """The recipes that come along, ours first."""
    found = sorted(path.stem for path in RECIPES.glob("*.toml"))
    return [name for name in FIRST if name in found] + [name for name in found if name not in FIRST]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scene", nargs="+", choices=tuple(SCENES), default=["sharp-3T"], metavar="NAME",
                        help=f"one or more of {', '.join(SCENES)} (default: sharp-3T)")  # fmt: skip
    parser.add_argument("--recipe", nargs="+", default=names(), help="names in config/recipes (default: all)")
    parser.add_argument("--write", action="store_true", help="into docs/")
    options = parser.parse_args(arguments)
    rows = [
        "| scene | recipe | detrended error % | of medi0's | nuclei: slope | worst nucleus | CPU s | GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print(*rows, sep="\n", flush=True)
    for name in options.scene:
        head, panels, scores = scene(name), [], {}
        for recipe in sorted(options.recipe, key=lambda recipe: recipe != "medi0"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
                maps, _, busy, peak = executor.submit(timed, head.acquisition, load_recipe(recipe)).result()
            scores[recipe] = score(head, maps)
            panels.append(_panel(head, maps, recipe))
            rows.append(_row(name, recipe, scores[recipe], scores.get("medi0"), busy, peak))
            print(rows[-1], flush=True)
        if options.write and name == options.scene[0]:
            _side_by_side(head, panels).save(FIGURE)
    if options.write:
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        TABLE.write_text("\n".join(rows) + "\n", encoding="utf-8")
        print(f"\nWritten: {TABLE.relative_to(ROOT)}, {FIGURE.relative_to(ROOT)}")
    return 0


def _row(scene_name: str, recipe: str, found: Scores, yardstick: Scores | None, busy: float, peak: float) -> str:
    ratio = f"{found.detrended / yardstick.detrended:.2f}" if yardstick else ""
    return (
        f"| {scene_name} | `{recipe}` | {found.detrended:.1f} | {ratio} | {found.slope:.3f} | "
        f"{found.worst} {found.worst_ppb:+.0f} ppb | {busy:.1f} | {peak:.1f} |"
    )


Panel = tuple[str, Image.Image, Image.Image]


def _panel(head: SimulatedHead, maps: Maps, name: str) -> Panel:
    """A map and its error, both relative to their means over where both are known, in three planes."""
    mask = maps.mask & head.brain_mask
    shift = head.chi[mask].mean() - maps.chi[mask].mean() if mask.any() else 0
    estimate = np.where(maps.mask, maps.chi + shift, 0)
    error = np.where(mask, estimate - head.chi, 0)
    return (
        name,
        Image.fromarray(planes(1000 * estimate, WINDOW_PPB, head)),
        Image.fromarray(planes(1000 * error, ERROR_WINDOW_PPB, head)),
    )


def _side_by_side(head: SimulatedHead, panels: list[Panel]) -> Image.Image:
    """A row for the truth and for each recipe: its map on the left, its error on the right."""
    truth = Image.fromarray(planes(1000 * np.where(head.brain_mask, head.chi, 0), WINDOW_PPB, head))
    width, height = truth.size
    image = Image.new("L", (2 * width, height * (len(panels) + 1)))
    draw = ImageDraw.Draw(image)
    image.paste(truth, (0, 0))
    draw.text((6, 6), f"truth ({WINDOW_PPB[0]} to {WINDOW_PPB[1]} ppb)", fill=255)
    draw.text((width + 6, 6), f"right: map less truth ({ERROR_WINDOW_PPB[0]} to {ERROR_WINDOW_PPB[1]} ppb)", fill=255)
    for row, (name, estimate, error) in enumerate(panels, start=1):
        image.paste(estimate, (0, row * height))
        image.paste(error, (width, row * height))
        draw.text((6, row * height + 6), name, fill=255)
    return image


if __name__ == "__main__":
    sys.exit(main())
