"""Lays a brain over a template: straight, then bent; and says how alike they are then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.regions._affine import AffineMap, align
from reconstruction.regions._deform import Level, bend, pulled
from reconstruction.regions._images import Images
from reconstruction.regions._sampling import sampled
from reconstruction.regions._template import Template, mixed, mixing, smoothed

OUTLINE_WEIGHT = 0.5
"""Of the brain's outline against 1 for a contrast: masks differ in how much fluid they take in."""

FIRST, SECOND = (Level(4, 20), Level(2, 15)), (Level(2, 8), Level(1, 6))
"""A first warp, over which the contrasts are mixed anew, and what it then still lacks."""

MIXING_MM = 5.0
"""Full width of the Gaussian over both images when contrasts are first mixed: what an affine map leaves of misfit."""

FINE_MM = 4.0
"""The same when they are mixed again, and compared: noise and single people's folds are no misfit."""


AROUND_MM = 10.0
"""What the nuclei stand out of."""


@dataclass(frozen=True, eq=False)
class Registration:
    """places: (3, x, y, z), the template's place in mm of every voxel of the images' grid.

    match: correlation of each contrast with the template's in the brain ("chi", …); "nuclei", that of χ around the
    nuclei, where the atlas has any and the brain was acquired there; "overlap", Dice of the brains;
    "turn", degrees; "smallest_scale", "largest_scale"; "bend", mm that nine tenths of the brain stay below; "squeeze",
    the smallest factor by which the warp shrinks a volume.
    """

    places: FloatArray
    match: Mapping[str, float]


def register(images: Images, template: Template, chi_weight: float) -> Registration:
    """Finds where in the template each voxel lies.  chi_weight: of χ against 1 for the other contrasts."""
    straight = align(images, template)
    at = template.voxels(straight(images.grid.places()))
    tissues = sampled(np.concatenate([template.tissues, template.brain[None]]), at)
    fixed = {**images.contrasts, "brain": images.brain}
    laid_over, width = tissues, MIXING_MM
    warp = np.zeros((3, *images.grid.shape), np.float32)
    for levels in (FIRST, SECOND):
        amounts = _amounts(images, laid_over, width)
        moving = {name: mixed(tissues[:-1], amount) for name, amount in amounts.items()}
        weights = _weights(images, {name: mixed(laid_over[:-1], amount) for name, amount in amounts.items()})
        weights["chi"] *= chi_weight
        moving["brain"] = tissues[-1]
        warp = bend(fixed, moving, weights | {"brain": OUTLINE_WEIGHT}, images.seen, levels, warp)
        laid_over, width = pulled(tissues, warp), FINE_MM
    places = straight(images.grid.places() + warp * np.float32(images.grid.step))
    bent = dict(zip(moving, pulled(np.stack([*moving.values()]), warp), strict=True))
    nuclei = sampled(template.nuclei[None], template.voxels(places))[0]
    return Registration(places.astype(np.float32), _match(images, bent, nuclei, warp, straight))


def _amounts(images: Images, laid_over: FloatArray, width_mm: float) -> dict[str, FloatArray]:
    """How much of each tissue the brain's contrasts hold.  laid_over: the template's tissues, the brain last."""
    step = images.grid.step
    blurred = smoothed(np.stack([*images.contrasts.values()]), width_mm, step)
    tissues = smoothed(laid_over[:-1], width_mm, step)
    return mixing(dict(zip(images.contrasts, blurred, strict=True)), tissues, images.judged)


def _weights(images: Images, moving: Mapping[str, FloatArray]) -> dict[str, float]:
    """A contrast counts by its correlation with the template's over the best one's: noise pulls at no voxel."""
    found = {n: max(_likeness(images, n, moving[n]), 0.0) for n in images.contrasts}
    best = max(found.values())
    return {name: value / best if best > 0 else 1.0 for name, value in found.items()}


def _likeness(images: Images, name: str, template: FloatArray, near: BoolArray | None = None) -> float:
    step, where = images.grid.step, images.judged if near is None else near
    one, other = smoothed(np.stack([images.contrasts[name], template]), FINE_MM, step)
    return _correlation(one[where], other[where])


def _match(
    images: Images, bent: Mapping[str, FloatArray], nuclei: FloatArray, warp: FloatArray, straight: AffineMap
) -> dict[str, float]:
    step, where = images.grid.step, images.judged
    template_brain = (bent["brain"] > 0.5) & images.seen
    figures = {name: _likeness(images, name, bent[name]) for name in images.contrasts}
    near = ndimage.binary_dilation(nuclei > 0.5, iterations=max(1, round(AROUND_MM / step))) & where
    if near.any():
        figures["nuclei"] = _likeness(images, "chi", bent["chi"], near)
    return figures | {
        "overlap": 2 * float((template_brain & where).sum()) / float(template_brain.sum() + where.sum()),
        "turn": straight.turn,
        "smallest_scale": float(straight.scales.min()),
        "largest_scale": float(straight.scales.max()),
        "bend": float(np.percentile(np.linalg.norm(warp, axis=0)[where], 90)) * step,
        "squeeze": _squeeze(warp, _inner(where)),
    }


def _correlation(one: FloatArray, other: FloatArray) -> float:
    """Pearson's; 0 where one of them is flat."""
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def _squeeze(warp: FloatArray, where: BoolArray) -> float:
    """Smallest determinant of the gradient of x → x + warp."""
    (a, b, c), (d, e, f), (g, h, i) = (
        [slope[where] + (axis == along) for along, slope in enumerate(np.gradient(component))]
        for axis, component in enumerate(warp)
    )
    return float((a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)).min())


def _inner(where: BoolArray) -> BoolArray:
    inner: BoolArray = ndimage.binary_erosion(where)
    return inner if inner.any() else where
