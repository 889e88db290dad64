"""Lays a brain over a template: straight, then bent; and says how alike they are then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.regions._affine import AffineMap, align
from reconstruction.regions._deform import bend
from reconstruction.regions._images import Images
from reconstruction.regions._template import Template, mixed, mixing, smoothed

OUTLINE_WEIGHT = 0.5
"""Of the brain's outline against 1 for a contrast: masks differ in how much fluid they take in."""

MIXING_MM = 5.0
"""Full width of the Gaussian over both images when contrasts are mixed: what an affine map leaves of misfit."""

FINE_MM = 4.0
"""Full width of the Gaussian over both images when they are compared: noise and single people's folds are no misfit."""


@dataclass(frozen=True, eq=False)
class Registration:
    """places: (3, x, y, z), the template's place in mm of every voxel of the images' grid.

    match: correlation of each contrast with the template's in the brain ("chi", …); "overlap", Dice of the brains;
    "turn", degrees; "smallest_scale", "largest_scale"; "bend", mm that nine tenths of the brain stay below; "squeeze",
    the smallest factor by which the warp shrinks a volume.
    """

    places: FloatArray
    match: Mapping[str, float]


def register(images: Images, template: Template, chi_weight: float) -> Registration:
    """Finds where in the template each voxel lies.  chi_weight: of χ against 1 for the other contrasts."""
    straight = align(images, template)
    moving = _in_its_contrasts(images, template, straight)
    weights = dict.fromkeys(images.contrasts, 1.0) | {"chi": chi_weight, "brain": OUTLINE_WEIGHT}
    warp = bend({**images.contrasts, "brain": images.brain}, moving, weights, images.seen)
    places = straight(images.grid.places() + warp * np.float32(images.grid.step))
    return Registration(places.astype(np.float32), _match(images, moving, warp, straight))


def _in_its_contrasts(images: Images, template: Template, straight: AffineMap) -> dict[str, FloatArray]:
    """The template on the images' grid, in the brain's own contrasts, and its brain."""
    step = images.grid.step
    at = template.voxels(straight(images.grid.places()))
    tissues = np.stack([_sample(tissue, at) for tissue in template.tissues])
    laid_over = np.stack([smoothed(tissue, MIXING_MM, step) for tissue in tissues])
    blurred = {name: smoothed(image, MIXING_MM, step) for name, image in images.contrasts.items()}
    amounts = mixing(blurred, laid_over, images.judged)
    return {name: mixed(tissues, amount) for name, amount in amounts.items()} | {"brain": _sample(template.brain, at)}


def _match(images: Images, moving: Mapping[str, FloatArray], warp: FloatArray, straight: AffineMap) -> dict[str, float]:
    step, where = images.grid.step, images.judged
    at = np.indices(images.grid.shape, dtype=np.float32) + warp
    bent = {name: _sample(image, at) for name, image in moving.items()}
    template_brain = (bent["brain"] > 0.5) & images.seen
    figures = {
        name: _correlation(smoothed(image, FINE_MM, step)[where], smoothed(bent[name], FINE_MM, step)[where])
        for name, image in images.contrasts.items()
    }
    return figures | {
        "overlap": 2 * float((template_brain & where).sum()) / float(template_brain.sum() + where.sum()),
        "turn": straight.turn,
        "smallest_scale": float(straight.scales.min()),
        "largest_scale": float(straight.scales.max()),
        "bend": float(np.percentile(np.linalg.norm(warp, axis=0)[where], 90)) * step,
        "squeeze": float(_jacobian(warp)[_inner(where)].min()),
    }


def _correlation(one: FloatArray, other: FloatArray) -> float:
    """Pearson's; 0 where one of them is flat."""
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def _jacobian(warp: FloatArray) -> NDArray[np.floating]:
    """Determinant of the gradient of x → x + warp."""
    gradient = np.stack([np.stack(np.gradient(axis)) for axis in warp])
    moved = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3, dtype=np.float32)
    determinant: NDArray[np.floating] = np.linalg.det(moved)
    return determinant


def _inner(where: BoolArray) -> BoolArray:
    inner: BoolArray = ndimage.binary_erosion(where)
    return inner if inner.any() else where


def _sample(image: FloatArray, at: NDArray[np.floating]) -> FloatArray:
    return ndimage.map_coordinates(image, at, order=1, output=np.float32)
