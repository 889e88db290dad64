"""Two passes: the map of what is reliable, made without the rest, and the rest filled in from the map of everything.

Stewart et al. 2022, doi:10.1002/mrm.29048.  A bleed whose field is not to be believed casts streaks; a first pass that
leaves it out of the mask takes its field for background, and casts none.
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray


def two_pass(noise: FloatArray, residual: FloatArray, mask: BoolArray, *, times_worse: float = 3.0) -> BoolArray:
    """The mask of the first pass, bool (x, y, z): the voxels of the mask whose field is good.

    noise: of the field, in any unit.  residual: normalised misfit of the echoes' fit.  Both float32 (x, y, z).
    times_worse: how many times the brain's median a voxel's uncertainty may be; at 3 the iron-rich nuclei stay in at 3
    and 7 T, and bleeds and calcifications do not.
    """
    if not mask.any():
        return mask.copy()
    uncertainty = noise * np.maximum(residual, 1)
    return mask & (uncertainty <= times_worse * np.median(uncertainty[mask]))


def filled(first: FloatArray, where: BoolArray, second: FloatArray, everywhere: BoolArray) -> FloatArray:
    """The first pass where it holds, else the second, which is moved to the first one's level, float32 (x, y, z).

    first, second: χ.  where, everywhere: bool (x, y, z), the masks that they hold in.
    """
    both = where & everywhere
    level = np.median((first - second)[both]) if both.any() else 0.0
    return np.where(where, first, second + np.float32(level))
