"""Where phase means something, and the shape of what is left."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.region_growing import voxel_quality
from reconstruction.stage import Range

Opening = Annotated[float, Range(most=20)]
"""mm; a ball's work grows with its third power, and 20 mm cut off more than hangs on a brain."""


def coherence(phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...]) -> FloatArray:
    """ROMEO's quality of the first echo, all voxels taken as neighbours, float32 (x, y, z).

    phase: float32 (echo, x, y, z), radian.  magnitude: float32 (x, y, z), of the first echo.  echo_times: s.
    """
    later, ratio = (phase[1], echo_times[0] / echo_times[1]) if len(echo_times) > 1 else (None, 1.0)
    return voxel_quality(phase[0], magnitude, np.ones(magnitude.shape, bool), later, ratio)


def opened(mask: BoolArray, geometry: Geometry, radius_mm: float) -> BoolArray:
    """Opening with a ball; the edge of the volume is no edge of the mask."""
    ball = _ball(geometry, radius_mm)
    shrunk = ~_dilated(~mask, ball)
    return mask & _dilated(shrunk, ball)


def eroded(mask: BoolArray, layers: int) -> BoolArray:
    """Without so many layers of voxels that share a face with the outside; the edge of the volume is no outside."""
    return np.asarray(ndimage.binary_erosion(mask, iterations=layers, border_value=1)) if layers else mask


def _ball(geometry: Geometry, radius_mm: float) -> NDArray[np.int64]:
    """The steps (n, 3) in voxels that lead no further than the radius."""
    reach = [int(radius_mm / v) for v in geometry.voxel_size]
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
    return steps[np.square(steps * np.array(geometry.voxel_size)).sum(axis=1) <= radius_mm**2]


@njit(parallel=True, cache=True)
def _dilated(mask: BoolArray, steps: NDArray[np.int64]) -> BoolArray:
    """The mask and what the steps lead to from it.

    Only from its surface: the voxel of a mask that is nearest to one outside has a neighbour outside.
    """
    nx, ny, nz = mask.shape
    grown = mask.copy()
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                inner = (x == 0 or mask[x - 1, y, z]) and (x == nx - 1 or mask[x + 1, y, z])
                inner = inner and (y == 0 or mask[x, y - 1, z]) and (y == ny - 1 or mask[x, y + 1, z])
                inner = inner and (z == 0 or mask[x, y, z - 1]) and (z == nz - 1 or mask[x, y, z + 1])
                if inner:
                    continue
                for n in range(steps.shape[0]):
                    i, j, k = x + steps[n, 0], y + steps[n, 1], z + steps[n, 2]
                    if 0 <= i < nx and 0 <= j < ny and 0 <= k < nz:
                        grown[i, j, k] = True
    return grown
