"""The images of one brain that are held against a template: on a grid along the patient's axes, of order one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.blocks import means
from reconstruction.pieces import Box, box_of
from reconstruction.regions._sampling import resliced
from reconstruction.smoothing import smooth

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

ROUNDING = 1e-3
"""Voxels."""


@dataclass(frozen=True)
class Grid:
    """Voxels `step` mm apart along right, front and top; origin: the centre of the first, mm."""

    origin: NDArray[np.float64]
    shape: tuple[int, ...]
    step: float

    @classmethod
    def around(cls, mask: BoolArray, affine: NDArray[np.float64], step: float) -> Grid:
        """The grid that covers a mask."""
        box = box_of(mask)
        i, j = np.nonzero(mask[box].any(axis=2))
        lines = mask[box][i, j]
        # The furthest voxels in any direction are ends of lines.
        ends = (lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1))
        rim = np.concatenate([np.stack([i, j, k], axis=1) for k in ends]) + [part.start for part in box]
        places = rim @ affine[:3, :3].T + affine[:3, 3]
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
    grid = Grid.around(mask, np.array(geometry.affine), max(STEP_MM, min(geometry.voxel_size)))
    seen = _seen(geometry, grid)
    box = box_of(mask)
    inside = mask[box]

    def gridded(volume: FloatArray) -> FloatArray:
        return np.where(seen, _resampled(np.where(inside, volume, np.float32(0)), box, geometry, grid), 0)

    brain = gridded(inside.astype(np.float32))
    chi = chi[box]
    contrasts = {
        "magnitude": _without_shading(gridded(magnitude[box]), brain, grid.step),
        "chi": gridded(np.clip(chi - np.median(chi[inside]), *CHI_LIMITS_PPM)),
    }
    if r2star is not None and (typical := np.median(r2star[mask])) > 0:
        contrasts["r2star"] = gridded(np.clip(r2star[box] / typical, 0, HIGHEST))
    return Images(grid, brain, seen, contrasts)


def _seen(geometry: Geometry, grid: Grid) -> BoolArray:
    """Whether a grid's voxel lies between the centres of acquired ones."""
    to_voxel = (np.linalg.inv(np.array(geometry.affine)) @ grid.affine).astype(np.float32)
    i, j, k = np.ogrid[*(slice(n) for n in grid.shape)]
    seen = np.ones(grid.shape, bool)
    for (a, b, c, start), size in zip(to_voxel[:3], geometry.shape, strict=True):
        at = a * i + b * j + c * k + start
        seen &= (at > -ROUNDING) & (at < size - 1 + ROUNDING)
    return seen


def _resampled(volume: FloatArray, box: Box, geometry: Geometry, grid: Grid) -> FloatArray:
    """What lies in a box of the volume, smoothed to the grid's resolution, on the grid; 0 outside the box."""
    sizes = np.array(geometry.voxel_size)
    blocks = np.maximum(1, np.floor(grid.step / sizes)).astype(int)
    # A frame of two zero blocks: what the box holds goes on as 0, not as at its edge.
    frame = 2 * blocks
    ends = [-(n + f) % b + f for n, f, b in zip(volume.shape, frame, blocks, strict=True)]
    x, y, z = (int(block) for block in blocks)
    framed = means(np.pad(volume, [*zip(frame, ends, strict=True)]), (x, y, z))
    variances = (grid.step**2 - sizes**2) / FWHM**2 - (blocks**2 - 1) / 12 * sizes**2
    smooth = ndimage.gaussian_filter(framed, np.sqrt(np.maximum(0, variances)) / (blocks * sizes))
    starts = np.array([part.start for part in box]) - frame + (blocks - 1) / 2
    to_voxel = np.linalg.inv(np.array(geometry.affine)) @ grid.affine
    matrix, offset = to_voxel[:3, :3] / blocks[:, None], (to_voxel[:3, 3] - starts) / blocks
    return resliced(smooth[None], matrix, offset, grid.shape)[0]


def _without_shading(magnitude: FloatArray, brain: FloatArray, step: float) -> FloatArray:
    """The magnitude over its local mean in the brain."""
    x, y, z = brain.shape
    grid = Geometry((x, y, z), (step, step, step), (0.0, 0.0, 1.0))
    mean = smooth(magnitude, grid, SHADING_MM) / np.maximum(smooth(brain, grid, SHADING_MM), 1e-3)
    return np.where(brain > 0, np.clip(magnitude / np.maximum(mean, 1e-6 * mean.max()), 0, HIGHEST), 0)
