"""The template as this brain would look in it: each contrast is mixed from what the atlas knows of the tissues.

What a gradient echo shows of grey matter, white matter, fluid and iron depends on echo times, flip angle and field.
So the template gets the brain's own contrasts: as much of each tissue as a regression of the brain's image on the
tissues, laid over it, finds (the idea of the correlation ratio, Roche 1998, doi:10.1007/BFb0056301, with tissues for
grey levels).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.atlas import Atlas, structure
from reconstruction.regions._gaussian import gaussian
from reconstruction.regions._images import FWHM
from reconstruction.regions._mixtures import density_ratio

EDGE = 1.0
"""log(density/threshold) grows by about 1 for each mm into a structure of subcortical size."""

ENOUGH = 30_000
"""Voxels, spread evenly, that say as well as all would how much of some ten tissues an image holds."""

RIDGE = 1e-4
"""Of the mean power of the tissues: keeps a structure of a few voxels from taking any value."""


@dataclass(frozen=True, eq=False)
class Template:
    """What brains are mixed from: float32 (x, y, z).  affine: voxel → mm.  tissues: (tissue, x, y, z), fluid last among
    them, then the structures, both sides together.  nuclei: all structures; nothing in an atlas without mixtures."""

    affine: NDArray[np.float64]
    brain: FloatArray
    tissues: FloatArray
    nuclei: FloatArray

    @property
    def step(self) -> float:
        """mm: the cube root of a voxel's volume."""
        return float(np.cbrt(np.linalg.det(self.affine[:3, :3])))

    def voxels(self, places: NDArray[np.floating]) -> NDArray[np.floating]:
        """Voxel indices of places (3, …) in mm."""
        inverse = np.linalg.inv(self.affine)
        offset = inverse[:3, 3].reshape(3, *[1] * (places.ndim - 1))
        at: NDArray[np.floating] = (np.tensordot(inverse[:3, :3], places, 1) + offset).astype(places.dtype)
        return at

    def blurred(self, width_mm: float) -> Template:
        """Smoothed to a full width at half maximum, on as few voxels as hold it."""
        every = max(1, int(width_mm / self.step / 2))
        stack = np.concatenate([self.tissues, self.brain[None], self.nuclei[None]])
        *tissues, brain, nuclei = gaussian(stack, width_mm / FWHM / self.step, every)
        return Template(self.affine @ np.diag([every, every, every, 1.0]), brain, np.stack(tissues), nuclei)


def template_of(atlas: Atlas) -> Template:
    """An atlas' tissues and structures as fractions of its voxels: a structure displaces the tissue it lies in."""
    structures: dict[str, FloatArray] = {}
    affine = np.array(atlas.affine)
    axes = np.meshgrid(*(np.arange(n) for n in atlas.brain.shape), indexing="ij")
    places = np.tensordot(affine[:3, :3], np.stack(axes), 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    for name, mixture in atlas.mixtures.items():
        ratio = density_ratio(mixture, places)
        near = ratio > np.exp(-0.5 * EDGE)
        both_sides = structures.setdefault(structure(name), np.zeros(ratio.shape, np.float32))
        both_sides[near] += np.minimum(1, 0.5 + np.log(ratio[near]) / EDGE)
    nuclei = np.clip(sum(structures.values(), start=np.zeros(places.shape[1:], np.float32)), 0, 1)
    rest = 1 - nuclei
    brain = atlas.brain.astype(np.float32)
    fluid = np.clip(brain - sum(atlas.tissues.values(), start=np.float32(0)), 0, 1)
    tissues = (*(image * rest for image in atlas.tissues.values()), fluid * rest, *structures.values())
    return Template(affine, brain, np.stack(tissues).astype(np.float32), nuclei)


def mixing(images: Mapping[str, FloatArray], laid_over: FloatArray, where: BoolArray) -> dict[str, FloatArray]:
    """How much of each tissue (tissue,) every image holds, by least squares over the voxels marked.

    laid_over: (tissue, x, y, z), the template's tissues on the images' grid.
    """
    voxels = np.flatnonzero(where)
    voxels = voxels[:: max(1, voxels.size // ENOUGH)]
    A = laid_over.reshape(len(laid_over), -1)[:, voxels].astype(np.float64)
    normal, whole = A @ A.T, A.sum(0)
    # Shrinks structures towards the mean of the tissues they lie in, not towards 0.
    damped = normal + RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
    found = {}
    for name, image in images.items():
        values = image.ravel()[voxels].astype(np.float64)
        mean = (values @ whole) / max(whole @ whole, 1e-12)
        found[name] = (mean + np.linalg.solve(damped, A @ (values - mean * whole))).astype(np.float32)
    return found


def mixed(tissues: FloatArray, amounts: FloatArray) -> FloatArray:
    """The image that has so much of each tissue."""
    return np.asarray(np.tensordot(amounts, tissues, 1), np.float32)


def smoothed(volumes: FloatArray, width_mm: float, step: float) -> FloatArray:
    """Volumes (n, x, y, z), each with a Gaussian of a full width at half maximum in mm."""
    return gaussian(volumes, width_mm / FWHM / step)
