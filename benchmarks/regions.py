"""How well the nuclei are found: simulated heads, each warped in its own way, through a recipe and an atlas.

    python -m benchmarks.regions [--head NAME …] [--failures] [--truth] [--against greedy] [--recipe NAME_OR_FILE]

Dice of what is found with the truth, the mean of both sides.  Then, in ppb, left and right: placed, what misplaced
voxels do to the mean of χ (the map's mean over the region found less its mean over the true region); off, the whole
error (that mean less the truth's over the true region, both relative to the reference).  CPU s: of the regions alone,
all threads together.  --truth: finds the nuclei on the true χ and R2*, which leaves the error of the outlines alone.
--against greedy: bends with that library instead of our own (`benchmarks/greedy.py` says what it needs).  --failures
shows instead what is said of brains that were turned, cut or mixed up.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks import greedy
from benchmarks.accuracy import load_recipe
from dicom_node.atlas import read_atlas
from reconstruction import Geometry, Maps, Recipe, Regions, reconstruct
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.regions import _register
from reconstruction.stage import run
from tests.simulation import warps
from tests.simulation.head import SimulatedHead, about_x, simulate_head
from tests.simulation.scenes import AERA_1T5, FIVE_ECHOES, SKYRA_3T, TERRA_7T

HEADS: dict[str, Callable[[], dict[str, Any]]] = {
    "noisy": lambda: {"warp": warps.rough(106, 1.5), "snr": 25.0, "seed": 106},
    "lesions": lambda: {"warp": warps.rough(105, 2.5, 14.0), "lesions": True, "rotation": about_x(-14), "seed": 105},
    "3T": lambda: {"shape": (128, 160, 96), "voxel_size": (1.5,) * 3, "warp": warps.rough(101), "seed": 101},
    "1.5T": lambda: {
        "shape": (128, 160, 80),
        "voxel_size": (1.5, 1.5, 2.0),
        "larmor_frequency": AERA_1T5,
        "echo_times": (5e-3, 14e-3, 23e-3, 32e-3, 41e-3),
        "snr": 40.0,
        "warp": warps.rough(102),
        "rotation": about_x(20),
        "seed": 102,
    },
    "7T-ventricles": lambda: {
        "shape": (160, 200, 112),
        "voxel_size": (1.2,) * 3,
        "larmor_frequency": TERRA_7T,
        "echo_times": (3e-3, 7e-3, 11e-3, 15e-3, 19e-3),
        "warp": warps.wide_ventricles(),
        "seed": 103,
    },
    "thick-slices": lambda: {
        "shape": (240, 300, 56),
        "voxel_size": (0.8, 0.8, 2.5),
        "warp": warps.rough(104, 1.5) + warps.wide_ventricles(5.0),
        "seed": 104,
    },
    "rough": lambda: {"warp": warps.rough(201), "seed": 201},
    "tilted": lambda: {"warp": warps.rough(202), "seed": 202, "rotation": about_x(12)},
    "old": lambda: {"warp": warps.rough(203) + warps.wide_ventricles(), "seed": 203},
    "1mm": lambda: {"shape": (200, 240, 150), "voxel_size": (1.0,) * 3, "warp": warps.rough(301), "seed": 301},
}
"""Arguments of `simulate_head`, made when they are asked for; 2 mm and five echoes at 3 T unless they say otherwise."""

QUICK = ("noisy", "lesions")

NUCLEI = {
    "caudate": ("caudate",),
    "putamen": ("putamen",),
    "pallidum": ("globus_pallidus_external", "globus_pallidus_internal"),
    "red_nucleus": ("red_nucleus",),
    "subst_nigra": ("substantia_nigra",),
    "subthalamic": ("subthalamic_nucleus",),
    "accumbens": ("nucleus_accumbens",),
}


@dataclass(frozen=True)
class Scores:
    """dice: mean of both sides.  shift_ppb, error_ppb: left and right, NaN for what was not found.  All by nucleus; see
    above."""

    dice: dict[str, float]
    shift_ppb: dict[str, tuple[float, float]]
    error_ppb: dict[str, tuple[float, float]]


def score(regions: Regions, head: SimulatedHead, maps: Maps) -> Scores:
    """Holds what was found against the truth.  A nucleus that is not among the regions has a Dice of 0."""
    dice, shift, error = {}, {}, {}
    zero = maps.reference.mask if maps.reference.mask.any() else maps.mask
    offset = _mean(maps.chi, zero) - _mean(head.chi, zero)
    for name, parts in NUCLEI.items():
        pairs = [(_found(regions, side, parts), _true(head, side, parts)) for side in ("left", "right")]
        dice[name] = float(np.mean([2 * (f & t).sum() / max(1, f.sum() + t.sum()) for f, t in pairs]))
        sides = [(_mean(maps.chi, f & maps.mask), _mean(maps.chi, t & maps.mask), _mean(head.chi, t)) for f, t in pairs]
        (left, true_left, truth_left), (right, true_right, truth_right) = sides
        shift[name] = (left - true_left, right - true_right)
        error[name] = (left - truth_left - offset, right - truth_right - offset)
    return Scores(dice, shift, error)


def _mean(chi: FloatArray, where: BoolArray) -> float:
    """In ppb, of ppm."""
    return 1000 * float(chi[where].mean()) if where.any() else float("nan")


def _found(regions: Regions, side: str, parts: tuple[str, ...]) -> BoolArray:
    names = [f"{side}_{part}" for part in parts if f"{side}_{part}" in regions.names]
    return np.any([regions.mask(name) for name in names] or [np.zeros(regions.labels.shape, bool)], axis=0)


def _true(head: SimulatedHead, side: str, parts: tuple[str, ...]) -> BoolArray:
    return np.any([head.labels[f"{part}_{side}"] for part in parts], axis=0)


def simulated(name: str) -> SimulatedHead:
    """The head of a name in HEADS."""
    usual = {
        "shape": (112, 128, 84),
        "voxel_size": (2.0, 2.0, 2.0),
        "echo_times": FIVE_ECHOES,
        "larmor_frequency": SKYRA_3T,
        "sharpening": 2.5,
    }
    return simulate_head(**(usual | HEADS[name]()))


def regions_of(maps: Maps, recipe: Recipe, **changed: Any) -> Regions:
    """The regions of maps that are made; changed: what the method is given in place of the maps' own."""
    step = recipe.steps["regions"]
    data = {
        "atlas": read_atlas(step.settings["name"]),
        "magnitude": maps.magnitude,
        "chi": maps.chi,
        "r2star": maps.r2star,
        "mask": maps.brain_mask,
        "geometry": maps.geometry,
    }
    regions: Regions = run("regions", step.method, step.settings, data | changed)
    return regions


def with_truth(maps: Maps, head: SimulatedHead) -> Maps:
    """Maps that are free of error: the nuclei are then misplaced by the atlas alone."""
    chi = np.where(head.brain_mask, head.chi, 0).astype(np.float32)
    return replace(maps, chi=chi, r2star=head.r2star, brain_mask=head.brain_mask, mask=head.brain_mask)


def failures(maps: Maps) -> dict[str, dict[str, Any]]:
    """By name, what is changed of a brain so that an atlas must not be believed, or may still be."""
    below = {f"turned by {angle}° about {axis}": (axis, angle) for axis, angle in TURNS}
    changed = {name: {"geometry": _turned(maps, *turn)} for name, turn in below.items()}
    changed["mirrored affine"] = {"geometry": _with(maps.geometry, np.diag([-1.0, 1, 1, 1]) @ _affine(maps))}
    changed["no affine"] = {"geometry": replace(maps.geometry, affine=None)}
    for name, flip in (("upside down", np.s_[:, :, ::-1]), ("back to front", np.s_[:, ::-1])):
        changed[name] = {key: np.ascontiguousarray(volume[flip]) for key, volume in _volumes(maps).items()}
    noise = np.random.default_rng(0).standard_normal((3, *maps.geometry.shape)).astype(np.float32)
    changed["noise"] = {"magnitude": 1 + 0.1 * noise[0], "chi": 0.05 * noise[1], "r2star": 20 + 5 * noise[2]}
    middle = int(np.argwhere(maps.brain_mask)[:, 2].mean())
    for millimetres, above in ((70, 0), (30, 0), (45, 45)):
        half, up = (round(n / maps.geometry.voxel_size[2]) for n in (millimetres / 2, above))
        name = f"slab of {millimetres} mm, {above} mm above the middle"
        changed[name] = _slab(maps, slice(middle + up - half, middle + up + half))
    return changed


TURNS = (("x", 20), ("y", 25), ("z", 25), ("x", 45), ("z", 90), ("x", 90), ("x", 180), ("y", 180), ("z", 180))


def _affine(maps: Maps) -> FloatArray:
    return np.array(maps.geometry.affine)


def _with(geometry: Geometry, affine: FloatArray, **changes: Any) -> Geometry:
    return replace(geometry, affine=tuple(tuple(row) for row in affine.tolist()), **changes)


def _turned(maps: Maps, axis: str, degrees: float) -> Geometry:
    """The geometry of a head that lies turned about the brain's middle."""
    middle = (_affine(maps) @ [*np.argwhere(maps.brain_mask).mean(0), 1])[:3]
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    return _with(maps.geometry, turn @ _affine(maps))


def _volumes(maps: Maps) -> dict[str, Any]:
    return {"magnitude": maps.magnitude, "chi": maps.chi, "r2star": maps.r2star}


def _slab(maps: Maps, part: slice) -> dict[str, Any]:
    affine = _affine(maps)
    affine[:, 3] = affine @ [0, 0, part.start, 1]
    shape = (*maps.geometry.shape[:2], part.stop - part.start)
    volumes = _volumes(maps) | {"mask": maps.brain_mask}
    cut = {key: np.ascontiguousarray(volume[..., part]) for key, volume in volumes.items()}
    return cut | {"geometry": _with(maps.geometry, affine, shape=shape)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regions", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--head", nargs="+", choices=tuple(HEADS), default=QUICK, metavar="NAME",
                        help=f"one or more of {', '.join(HEADS)} (default: {', '.join(QUICK)})")  # fmt: skip
    parser.add_argument("--failures", action="store_true", help="turn, cut and mix up the first head instead")
    parser.add_argument("--truth", action="store_true", help="on the true maps")
    parser.add_argument("--against", choices=("greedy",), help="bend with this library")
    parser.add_argument("--recipe", default="default", help="a name in config/recipes or a TOML file")
    options = parser.parse_args(arguments)
    recipe = load_recipe(options.recipe)
    if "regions" not in recipe.steps:
        parser.error(f"the recipe {options.recipe} has no [regions]")
    if options.failures:
        return _show_failures(reconstruct(simulated(options.head[0]).acquisition, recipe), recipe)
    if options.against:
        _register.bend = greedy.bend
    print(f"{'head':14} {'CPU s':>6} " + " ".join(f"{name:>12}" for name in NUCLEI))
    for name in options.head:
        head = simulated(name)
        maps = reconstruct(head.acquisition, recipe)
        if options.truth:
            maps = with_truth(maps, head)
        began = time.process_time()
        regions = regions_of(maps, recipe)
        seconds = time.process_time() - began
        scores = score(regions, head, maps)
        print(f"{name:14} {seconds:6.1f} " + " ".join(f"{value:12.3f}" for value in scores.dice.values()))
        for row, values in (("placed", scores.shift_ppb), ("off", scores.error_ppb)):
            print(f"{'':14} {row:>6} " + " ".join(f"{left:+6.1f}{right:+6.1f}" for left, right in values.values()))
        print(f"  {regions.reason or 'trusted'}: {_said(regions)}", flush=True)
    return 0


def _show_failures(maps: Maps, recipe: Recipe) -> int:
    for name, changed in ({"as it is": {}} | failures(maps)).items():
        regions = regions_of(maps, recipe, **changed)
        verdict = f"{len(regions.names)} regions" if regions.trusted else f"withheld: {regions.reason}"
        print(f"{name:38} {verdict}\n    {_said(regions)}", flush=True)
    return 0


def _said(regions: Regions) -> str:
    return ", ".join(f"{figure} {value:.2f}" for figure, value in regions.match.items())


if __name__ == "__main__":
    sys.exit(main())
