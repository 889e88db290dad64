"""How near the maps come to the truth: simulated heads through a recipe, a table and pictures out.

    python -m benchmarks.accuracy [--scene NAME …] [--recipe NAME_OR_FILE] [--out FOLDER]

The truth of a simulated head is known in every voxel.  Maps and truth are compared after both were shifted to mean 0 in
the map's mask, since susceptibility is only ever known up to a constant.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.lesions import lesion_means
from reconstruction import Acquisition, Maps, Recipe, reconstruct
from tests.simulation.head import SimulatedHead
from tests.simulation.scenes import SCENES, scene

RECIPES = Path(__file__).parents[1] / "config" / "recipes"
WINDOW_PPB = (-150, 200)
ERROR_WINDOW_PPB = (-100, 100)


@dataclass(frozen=True)
class Scores:
    """How one map compares with the truth.

    covered: part of the brain inside the brain mask.  valid: part of it where χ is given.  outside: part of the brain
    mask that lies outside the intracranial space.  slope, intercept_ppb: regression of the nuclei's means on their
    truth.  worst: the nucleus with the largest error, and that error.  rmse: % of the truth's own deviation in the
    mask; detrended: with the best scale taken out.  field_ppb: median error of the total field.  local_ppb: RMS error
    of the local field.  r2star: median error, %.
    """

    covered: float
    valid: float
    outside: float
    slope: float
    intercept_ppb: float
    worst: str
    worst_ppb: float
    rmse: float
    detrended: float
    field_ppb: float
    local_ppb: float
    r2star: float


def score(head: SimulatedHead, maps: Maps) -> Scores:
    """Compares maps with the head that they were made from."""
    mask, brain = maps.mask & head.brain_mask, head.brain_mask
    estimate, truth = (np.where(mask, chi - chi[mask].mean(), 0) for chi in (maps.chi, head.chi))
    found = {name: label & mask for name, label in head.labels.items() if (label & mask).any()}
    means = np.array([[truth[label].mean(), estimate[label].mean()] for label in found.values()])
    slope, intercept = np.polyfit(*means.T, 1)
    errors = 1000 * (means[:, 1] - means[:, 0])
    worst = int(np.abs(errors).argmax())
    scale = (estimate[mask] @ truth[mask]) / (truth[mask] @ truth[mask])
    norm = np.linalg.norm(truth[mask])
    field, local = maps.field - head.field, maps.local_field - head.local_field()
    r2star = np.nan if maps.r2star is None else np.median(np.abs(maps.r2star - head.r2star)[mask] / head.r2star[mask])
    return Scores(
        covered=float(maps.brain_mask[brain].mean()),
        valid=float(maps.mask[brain].mean()),
        outside=float((~head.inside_skull)[maps.brain_mask].mean()),
        slope=float(slope),
        intercept_ppb=float(1000 * intercept),
        worst=list(found)[worst],
        worst_ppb=float(errors[worst]),
        rmse=float(100 * np.linalg.norm((estimate - truth)[mask]) / norm),
        detrended=float(100 * np.linalg.norm((estimate / scale - truth)[mask]) / norm),
        field_ppb=float(1000 * np.median(np.abs(field - np.median(field[mask]))[mask])),
        local_ppb=float(1000 * (local - local[mask].mean())[mask].std()),
        r2star=float(100 * r2star),
    )


def picture(head: SimulatedHead, maps: Maps) -> Image.Image:
    """Truth, map and error (rows) in three planes through the nuclei, 1 mm pixels, the patient's right on the left."""
    mask = maps.mask & head.brain_mask
    shift = head.chi[mask].mean() - maps.chi[mask].mean() if mask.any() else 0
    estimate = np.where(maps.mask, maps.chi + shift, 0)
    error = np.where(mask, estimate - head.chi, 0)
    truth = np.where(head.brain_mask, head.chi, 0)
    rows = [
        planes(1000 * volume, window, head)
        for volume, window in ((truth, WINDOW_PPB), (estimate, WINDOW_PPB), (error, ERROR_WINDOW_PPB))
    ]
    image = Image.fromarray(np.vstack(rows))
    draw = ImageDraw.Draw(image)
    for i, title in enumerate(("truth", "map", f"error {ERROR_WINDOW_PPB[0]}…{ERROR_WINDOW_PPB[1]} ppb")):
        draw.text((4, 4 + i * rows[0].shape[0]), title, fill=255)
    return image


def _centre(head: SimulatedHead) -> tuple[int, int, int]:
    """A voxel whose planes cut the basal ganglia; a little off the midline, where the sagittal one shows the brain."""
    nuclei = np.any([label for name, label in head.labels.items() if name.startswith(("putamen", "caudate"))], axis=0)
    at = np.argwhere(nuclei).mean(0) if nuclei.any() else np.array(head.chi.shape) / 2
    at[0] += 9 / head.acquisition.geometry.voxel_size[0]
    return tuple(round(n) for n in at)  # type: ignore[return-value]  # three axes


def planes(volume: NDArray[np.floating], window: tuple[float, float], head: SimulatedHead) -> NDArray[np.uint8]:
    """Three planes of a volume in the head, through the nuclei, side by side; 1 mm pixels, grey within the window."""
    x, y, z = _centre(head)
    sx, sy, sz = head.acquisition.geometry.voxel_size
    cuts = (
        (volume[:, :, z].T, sx, sy),
        (volume[:, y].T[::-1], sx, sz),
        (volume[x].T[::-1], sy, sz),
    )
    shown = []
    for plane, width, height in cuts:
        grey = np.clip((plane - window[0]) / (window[1] - window[0]) * 255, 0, 255).astype(np.uint8)
        size = (round(plane.shape[1] * width), round(plane.shape[0] * height))
        shown.append(np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.NEAREST)))
    tallest = max(plane.shape[0] for plane in shown)
    nothing = round(255 * np.clip(-window[0] / (window[1] - window[0]), 0, 1))
    rows = [(tallest - plane.shape[0], plane) for plane in shown]
    return np.hstack(
        [np.pad(plane, ((more // 2, more - more // 2), (0, 0)), constant_values=nothing) for more, plane in rows]
    )


def timed(acquisition: Acquisition, recipe: Recipe) -> tuple[Maps, float, float, float]:
    """Reconstructs; returns the maps, the seconds, those of all cores together, and the peak memory in GB of this
    process (on Linux)."""
    # VmHWM and not ru_maxrss: that one starts with the memory of the process that forked this one.
    began, worked = time.perf_counter(), time.process_time()
    maps = reconstruct(acquisition, recipe)
    seconds, busy = time.perf_counter() - began, time.process_time() - worked
    status = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    return maps, seconds, busy, float(status["VmHWM"].split()[0]) / 1e6


def load_recipe(name_or_file: str) -> Recipe:
    path = Path(name_or_file)
    path = path if path.suffix == ".toml" else RECIPES / f"{name_or_file}.toml"
    return Recipe.from_mapping(tomllib.loads(path.read_text()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scene", nargs="+", choices=tuple(SCENES), default=["quick"], metavar="NAME",
                        help=f"one or more of {', '.join(SCENES)} (default: quick)")  # fmt: skip
    parser.add_argument("--recipe", default="default", help="a name in config/recipes or a TOML file")
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"), help="folder for the pictures")
    options = parser.parse_args(arguments)
    recipe = load_recipe(options.recipe)
    options.out.mkdir(parents=True, exist_ok=True)
    print(HEADER)
    for name in options.scene:
        head = scene(name)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
            maps, seconds, _, peak = executor.submit(timed, head.acquisition, recipe).result()
        print(line(name, score(head, maps), seconds, peak), flush=True)
        print("  " + "  ".join(f"{stage} {spent:.1f} s" for stage, spent in maps.timings.items()))
        for lesion, (found, true) in lesion_means(head, maps).items():
            print(f"  {lesion}: {found:+.0f} ppb, in truth {true:+.0f}")
        for warning in maps.warnings:
            print(f"  warning: {warning}")
        picture(head, maps).save(options.out / f"accuracy-{name}.png")
    print(f"\nPictures: {options.out}")
    return 0


HEADER = (
    f"{'scene':12} {'s':>6} {'GB':>5} {'covered':>8} {'valid':>6} {'outside':>8} {'slope':>6} {'icept':>6} "
    f"{'worst nucleus':>34} {'rmse %':>7} {'detr %':>7} {'field':>6} {'local':>6} {'R2* %':>6}"
)


def line(name: str, s: Scores, seconds: float, peak: float) -> str:
    worst = f"{s.worst} {s.worst_ppb:+.0f} ppb"
    return (
        f"{name:12} {seconds:6.1f} {peak:5.1f} {s.covered:8.1%} {s.valid:6.1%} {s.outside:8.2%} {s.slope:6.3f} "
        f"{s.intercept_ppb:+6.1f} {worst:>34} {s.rmse:7.1f} {s.detrended:7.1f} {s.field_ppb:6.1f} {s.local_ppb:6.1f} "
        f"{s.r2star:6.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
