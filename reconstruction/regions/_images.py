"""The images of one brain that are held against a template: on a grid along the patient's axes, of order one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry

STEP_MM = 2.0
"""Spacing of the grid: the template's own, which is an average of many people and holds no finer detail."""

MARGIN_MM = 8.0
"""Round the brain: the room in which a warp can still pull."""

SHADING_MM = 25.0
"""SD of the Gaussian that tells the coils' shading from anatomy, in the magnitude inside the brain."""

CHI_LIMITS_PPM = (-0.15, 0.3)
"""Beyond these lie calcifications and bleeds, which no template has."""

HIGHEST = 3.0
"""Of R2* and magnitude over their typical value: what is more is air's field, or a vessel's inflow."""

FWHM = 2.3548
"""Full width at half maximum of a Gaussian over its standard deviation."""


@dataclass(frozen=True)
class Grid:
    """Voxels `step` mm apart along right, front and top; origin: the centre of the first, mm."""

    origin: NDArray[np.float64]
    shape: tuple[int, ...]
    step: float

    @classmethod
    def around(cls, mask: BoolArray, affine: NDArray[np.float64], step: float) -> Grid:
        """The grid that covers a mask."""
        places = np.argwhere(mask & ~ndimage.binary_erosion(mask)) @ affine[:3, :3].T + affine[:3, 3]
        low, high = places.min(0) - MARGIN_MM, places.max(0) + MARGIN_MM
        return cls(low, tuple(int(n) for n in np.ceil((high - low) / step) + 1), step)

    @property
    def affine(self) -> NDArray[np.float64]:
        matrix = np.diag([self.step] * 3 + [1.0])
        matrix[:3, 3] = self.origin
        return matrix

    def places(self) -> FloatArray:
        """(3, x, y, z) mm."""
        axes = [o + self.step * np.arange(n) for o, n in zip(self.origin, self.shape, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Images:
    """One brain on a grid.

    brain: fraction of the voxel, float32 (x, y, z).  seen: bool, whether the acquisition reaches there.  contrasts:
    float32 (x, y, z) by name, 0 outside the brain.
    """

    grid: Grid
    brain: FloatArray
    seen: BoolArray
    contrasts: Mapping[str, FloatArray]

    @property
    def judged(self) -> BoolArray:
        """Where brain and template are compared: inside the brain as far as it was acquired."""
        return (self.brain > 0.5) & self.seen


def images_of(
    magnitude: FloatArray, chi: FloatArray, r2star: FloatArray | None, mask: BoolArray, geometry: Geometry
) -> Images:
    """The contrasts of a brain: magnitude without shading, χ within what tissue has, R2* over its median."""
    affine = np.array(geometry.affine)
    grid = Grid.around(mask, affine, max(STEP_MM, min(geometry.voxel_size)))

    def gridded(volume: FloatArray) -> FloatArray:
        return _resample(np.where(mask, volume, np.float32(0)), affine, geometry.voxel_size, grid)

    brain = gridded(mask.astype(np.float32))
    seen = _resample(np.ones(geometry.shape, np.float32), affine, geometry.voxel_size, grid) > 0.99
    contrasts = {
        "magnitude": _without_shading(gridded(magnitude), brain, grid.step),
        "chi": gridded(np.clip(chi - np.median(chi[mask]), *CHI_LIMITS_PPM)),
    }
    if r2star is not None and (typical := np.median(r2star[mask])) > 0:
        contrasts["r2star"] = gridded(np.clip(r2star / typical, 0, HIGHEST))
    return Images(grid, brain, seen, contrasts)


def _resample(
    volume: FloatArray, affine: NDArray[np.float64], voxel_size: tuple[float, float, float], grid: Grid
) -> FloatArray:
    """A volume on the grid, smoothed first to the grid's resolution; 0 where it does not reach."""
    widths = [np.sqrt(max(0.0, grid.step**2 - size**2)) / FWHM / size for size in voxel_size]
    smooth = ndimage.gaussian_filter(volume, widths, mode="nearest")
    to_voxel = np.linalg.inv(affine) @ grid.affine
    return ndimage.affine_transform(smooth, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=grid.shape, order=1)


def _without_shading(magnitude: FloatArray, brain: FloatArray, step: float) -> FloatArray:
    """The magnitude over its local mean in the brain."""
    width = SHADING_MM / step
    near = ndimage.gaussian_filter(brain, width)
    mean = ndimage.gaussian_filter(magnitude, width) / np.maximum(near, 1e-3)
    return np.where(brain > 0, np.clip(magnitude / np.maximum(mean, 1e-6 * mean.max()), 0, HIGHEST), 0)
