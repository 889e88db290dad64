"""What the figures of a reconstruction make of it: good, to be looked at, or failed.

Each figure has two bounds.  `python -m benchmarks.grade` prints the figures of simulated heads, spoilt one way at a
time, and with `--whole` those of whole ones of 1.5, 3 and 7 T and of slabs, beside the error that each came to: whole
ones lie within the first bound, and what loses its nuclei's values lies beyond it; beyond the second the map shows
something else than this brain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from reconstruction import dipole, distance, fourier
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.background._harmonics import fit_harmonics
from reconstruction.maps import Grade
from reconstruction.noise import noise_of_detail
from reconstruction.pieces import centroid

EDGE_MM = 6.0
"""The shell below the surface where a background that was not removed is strongest."""

ENOUGH_MM = 2.0
"""Voxels nearer than this are left out where the edge is looked at: what is sought is smooth."""

CUT, ROUND_MM = 0.5, 4.0
"""A brain's end has less than this part of its largest cross-section so far inwards (whole heads 0.2), a cut's more."""

EDGE_ORDER = 4
"""What far sources make over a head is told by its first 25 solid harmonics."""

CENTRAL_MM = 40.0
"""Round the brain's middle: the basal ganglia lie within, the air of the sinuses beyond."""

EXTREME = 0.01
"""The part of the central brain at either end of χ that is compared: the iron-richest nuclei and veins at the one."""

DEVIATION = (0.16, 0.84)
"""Quantiles two standard deviations apart, whatever the few voxels of vessels, lesions and dephasing hold."""

CONE = 0.1
"""|D| below which k-space holds what the inversion had to make up."""

SHELLS = np.linspace(0.1, 0.45, 8)
"""Bounds of |k|, of the sampling frequency, within which the cone is compared with the rest."""


@dataclass(frozen=True)
class Bounds:
    """Beyond `review` a figure asks for a person, beyond `failed` the map is not to be used.

    Where failed is the smaller number, smaller is worse.  meaning: what is found beyond them, and what to look at, for
    people.  figure: what the figure is called to them.  unit: behind its number; "%" of one that is a part of 1.
    """

    review: float
    failed: float
    meaning: str
    figure: str
    unit: str = ""

    def grade(self, value: float) -> Grade:
        sign = 1 if self.failed > self.review else -1
        if not sign * value <= sign * self.failed:  # NaN is no figure to trust
            return "failed"
        return "good" if sign * value <= sign * self.review else "review"

    def ground(self, value: float, grade: Grade) -> str:
        """Why `value` is not good: the meaning, then the figure and the bound that it passed."""
        limit = self.failed if grade == "failed" else self.review
        side = "at most" if self.failed > self.review else "at least"
        return f"{self.meaning} ({self.figure} {self._number(value)}, {side} {self._number(limit)})"

    def _number(self, value: float) -> str:
        if math.isnan(value):
            return "unknown"
        shown = 100 * value if self.unit == "%" else value
        return f"{shown:.0f} {self.unit}".strip() if abs(shown) >= 100 else f"{shown:.3g} {self.unit}".strip()


BOUNDS: dict[str, Bounds] = {
    "mask.brain_ml": Bounds(2100.0, 3000.0, "The mask holds more than a brain: look at its outline", "brain", "ml"),
    "mask.valid_ml": Bounds(
        300.0, 30.0, "Susceptibility is known in a small piece of brain only: look at the mask", "known in", "ml"
    ),
    "mask.slab_mm": Bounds(
        100.0,
        20.0,
        "A slab of brain, whose field is not told well from that of the rest: values may be off, most near its ends",
        "thickness",
        "mm",
    ),
    "mask.covered": Bounds(
        0.7, 0.4, "Much of the brain has no susceptibility: look at the mask, and for motion and metal", "mapped", "%"
    ),
    "mask.excluded": Bounds(
        0.1, 0.5, "Much of the brain has no field that can be believed: look for motion and metal", "left out", "%"
    ),
    "magnitude.snr": Bounds(20.0, 10.0, "The signal is lost in noise: look at coil and resolution", "SNR"),
    "echoes": Bounds(
        2, 0, "A single echo: some of the receivers' phase is in the map, and nothing checks it", "echoes"
    ),
    "combine.misfit": Bounds(
        1.6,
        5.0,
        "The echoes do not follow one frequency: look for motion, flow, filtered phase, a bipolar read-out",
        "misfit over noise",
    ),
    "edge.harmonic": Bounds(
        0.2, 0.5, "Background is left at the brain's edge: look at the mask and the phase", "of the field there", "%"
    ),
    "edge.ratio": Bounds(
        3.5, 10.0, "The field is wild at the brain's edge: look at the mask", "spread there over that within"
    ),
    "iron.contrast": Bounds(
        1.2,
        -0.3,
        "Where susceptibility is high R2* is not: look at the sign of the phase, noise, motion and calcifications",
        "contrast of iron",
        "SD",
    ),
    "streaks": Bounds(
        1.0, 2.0, "The map is streaky: look at the direction of B0 and the mask", "power of streaks over the rest"
    ),
    "chi.sd_ppb": Bounds(
        60.0, 150.0, "Susceptibility varies more than tissue does: look at echo times and phase", "SD", "ppb"
    ),
    "chi.least_sd_ppb": Bounds(
        10.0, 5.0, "Susceptibility hardly varies: look at the phase and the recipe's settings", "SD", "ppb"
    ),
}
"""By the names of the figures.  Iron rises with age: that an infant's nuclei show no contrast is no failure.  Whole
heads have an iron.contrast of 1.46 at 1.5 T and 1.85 at 3 T at least, one full of ghosts 1.12.  They reach an
edge.ratio of 1.6, and of 2.9 by the recipe `fast`, whose errors are small all the same; a mask that is 8 mm too large
or lies 16 mm beside the brain makes it 8 at least (masks and ghosts by `python -m benchmarks.grade --recipe default
fast`), on the coarse small head of the tests 3.6.  A few wild voxels are what tells such a mask, so it is no ratio of
quantiles.  Slabs through the basal ganglia are up to 42 ppb off in a nucleus at 20 mm by the default recipe, 22 at 40
mm, 15 at 48 to 64 mm, and 10 from 80 mm on, as the whole of that head is; slabs that end among the nuclei 27 at 70 mm
of brain: less than 100 mm is for a person to see (all else by `python -m benchmarks.grade --whole --recipe default
fast`)."""


def judge(figures: Mapping[str, float]) -> tuple[Grade, tuple[str, ...]]:
    """The worst grade of all figures that have bounds, and a sentence for each that is not good, worst first.

    A figure that could not be made (R2* of a single echo) has no say.
    """
    found: dict[Grade, list[str]] = {"failed": [], "review": [], "good": []}
    for name, bounds in BOUNDS.items():
        if name not in figures:
            continue
        value, grade = figures[name], bounds.grade(figures[name])
        found[grade].append(bounds.ground(value, grade))
    worst: Grade = "failed" if found["failed"] else "review" if found["review"] else "good"
    return worst, (*found["failed"], *found["review"])


def figures(
    chi: FloatArray,
    r2star: FloatArray | None,
    local_field: FloatArray | None,
    magnitude: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
) -> dict[str, float]:
    """Those of BOUNDS that are made of the maps alone.

    chi, local_field: ppm, r2star: 1/s, magnitude: root sum of squares; float32 (x, y, z).  local_field: None where no
    background was taken off, which says nothing of how well it was.  mask: bool (x, y, z), where χ is valid.
    """
    detail = noise_of_detail(magnitude, mask)
    deviation = 1000 * float(chi[mask].std())
    found = {
        "streaks": streaks(chi, mask, geometry),
        "chi.sd_ppb": deviation,
        "chi.least_sd_ppb": deviation,
    }
    if local_field is not None:
        found |= edge(local_field, mask, geometry)
    if detail > 0:
        found["magnitude.snr"] = float(np.median(magnitude[mask])) / detail
    contrast = None if r2star is None else iron_contrast(chi, r2star, mask, geometry)
    return found if contrast is None else found | {"iron.contrast": contrast}


def extent(mask: BoolArray, geometry: Geometry) -> dict[str, float]:
    """valid_ml: volume of where χ is valid.

    slab_mm: how far the mask reaches along the axis of the grid on which a cut ends it, the least of several; left out
    where it is round at all its ends, as a whole brain is, however small.
    """
    found = {"mask.valid_ml": float(mask.sum()) * geometry.voxel_volume / 1000}
    slabs = []
    for axes, size in zip(((1, 2), (0, 2), (0, 1)), geometry.voxel_size, strict=True):
        area = np.trim_zeros(np.count_nonzero(mask, axis=axes))
        inner = min(int(ROUND_MM / size), area.size - 1)
        if area.size and max(area[inner], area[-1 - inner]) > CUT * area.max():
            slabs.append(area.size * size)
    return found | ({"mask.slab_mm": min(slabs)} if slabs else {})


def edge(local_field: FloatArray, mask: BoolArray, geometry: Geometry) -> dict[str, float]:
    """harmonic: part of the local field's variance in the shell below the surface that far sources explain.

    ratio: its standard deviation there over that within.  local_field: ppm, float32 (x, y, z).
    """
    thinned = tuple(slice(None, None, max(1, int(ENOUGH_MM / size))) for size in geometry.voxel_size)
    local_field, mask, geometry = local_field[thinned], mask[thinned], _thinned(geometry, thinned)
    shell = mask & (distance.depth(np.pad(mask, 1), geometry.voxel_size)[1:-1, 1:-1, 1:-1] <= EDGE_MM)
    within = mask & ~shell
    if not shell.any() or not within.any() or local_field[shell].std() == 0 or local_field[within].std() == 0:
        return {}
    fit = fit_harmonics(local_field, shell.astype(np.float32), shell, geometry, EDGE_ORDER)
    return {
        "edge.harmonic": float(fit[shell].var() / local_field[shell].var()),
        "edge.ratio": float(local_field[shell].std() / local_field[within].std()),
    }


def _thinned(geometry: Geometry, steps: tuple[slice, ...]) -> Geometry:
    x, y, z = (len(range(n)[step]) for n, step in zip(geometry.shape, steps, strict=True))
    i, j, k = (size * step.step for size, step in zip(geometry.voxel_size, steps, strict=True))
    return Geometry((x, y, z), (i, j, k), geometry.b0_direction)


def iron_contrast(chi: FloatArray, r2star: FloatArray, mask: BoolArray, geometry: Geometry) -> float | None:
    """Median R2* of the central voxels with the highest χ less that of those with the lowest, in SD of R2*.

    Iron and the blood of veins make both high, and myelin lowers χ; turned over, χ gives the same figure below zero.
    That the voxels of highest R2* had a high χ would not hold for a child, whose white matter has as much R2* as its
    nuclei.  None where the central brain was not imaged, or has no R2* or no χ that differs.
    """
    offsets = [
        (size * (np.arange(n) - middle)).astype(np.float32) ** 2
        for n, middle, size in zip(mask.shape, centroid(mask), geometry.voxel_size, strict=True)
    ]
    near = mask & (sum(np.ix_(*offsets)) <= CENTRAL_MM**2)
    r2star, chi = r2star[near], chi[near]
    if r2star.size < 1000:
        return None
    below, above = np.quantile(r2star, DEVIATION)
    lowest, highest = np.quantile(chi, (EXTREME, 1 - EXTREME))
    if not (below < above and lowest < highest):
        return None
    difference = np.median(r2star[chi >= highest]) - np.median(r2star[chi <= lowest])
    return float(difference / ((above - below) / 2))


def streaks(chi: FloatArray, mask: BoolArray, geometry: Geometry) -> float:
    """Power of χ in the dipole's zero cone over that beside it at the same |k|, the median over shells of |k|.

    Tissue has about as much in every direction, a regulariser takes some from the cone, and streaks are power in it.
    """
    window = fourier.Window.around(mask, geometry.voxel_size, 0.0)
    centred = np.where(mask, chi - chi[mask].mean(), 0).astype(np.float32)
    power = np.abs(fourier.forward(window.cut(centred), window.shape)) ** 2
    cone = np.abs(dipole.sampled(window.shape, geometry.voxel_size, geometry.b0_direction)) < CONE
    kx, ky, kz = fourier.frequencies(window.shape, geometry.voxel_size)
    k = np.sqrt(kx**2 + ky**2 + kz**2) * max(geometry.voxel_size)
    ratios = []
    for low, high in pairwise(SHELLS):
        shell = (k >= low) & (k < high)
        inside, beside = power[shell & cone], power[shell & ~cone]
        if inside.size and beside.size and beside.mean() > 0:
            ratios.append(inside.mean() / beside.mean())
    return float(np.median(ratios)) if ratios else 0.0
