"""Two passes: the map of what is reliable, made without the rest, and the rest filled in from the map of everything.

Stewart et al. 2022, doi:10.1002/mrm.29048.  A bleed whose field is not to be believed casts streaks; a first pass that
leaves it out of the mask takes its field for background, and casts none.  It helps inversions that do not weight by
noise, such as RTS; those that do gain nothing by it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry


def two_pass(
    noise: FloatArray,
    residual: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    times_worse: float = 3.0,
    min_volume_mm3: float = 30.0,
) -> BoolArray:
    """The mask of the first pass, bool (x, y, z): that of the brain without what is uncertain.

    noise: of the field, in any unit.  residual: normalised misfit of the echoes' fit.  Both float32 (x, y, z).
    times_worse: how many times the brain's median a voxel's uncertainty may be; at 3 the iron-rich nuclei stay in at 3
    and 7 T, and bleeds and calcifications do not.
    min_volume_mm3: smaller pieces are not left out: round each of them background removal would lose more than it.
    """
    if not mask.any():
        return mask.copy()
    uncertainty = noise * np.maximum(residual, 1)
    left_out = mask & (uncertainty > times_worse * np.median(uncertainty[mask]))
    pieces, _ = ndimage.label(left_out)
    large = np.bincount(pieces.ravel()) * geometry.voxel_volume >= min_volume_mm3
    large[0] = False
    return mask & ~large[pieces]


def filled(first: FloatArray, where: BoolArray, second: FloatArray, everywhere: BoolArray) -> FloatArray:
    """The first pass where it holds, else the second, which is moved to the first one's level, float32 (x, y, z).

    first, second: χ.  where, everywhere: bool (x, y, z), the masks that they hold in.
    """
    both = where & everywhere
    level = np.median((first - second)[both]) if both.any() else 0.0
    return np.where(where, first, second + np.float32(level))
