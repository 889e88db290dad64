"""Which voxels of the field can be believed.

A voxel is judged by the standard deviation of its field, made larger by the root of the reduced χ² of its fit where
that is above 1 (the Birge ratio: Birge 1932, doi:10.1103/PhysRev.40.207).  So low signal and a signal that does not
follow one frequency (flow, dephasing beside air, a wrap) count alike, and in one unit.
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray

TIMES_WORSE = 5.0
"""How many times the brain's median a voxel's uncertainty may be.  In simulated heads at 3 and 7 T that leaves out
0.1 to 0.5 % of the brain, nearly every error above 10 Hz beside the sinuses, and no voxel of the iron-rich nuclei:
short T2* makes the pallidum's uncertainty 1.3 (3 T) to 1.8 (7 T) times the median, 3 at most."""


def reliable(residual: FloatArray, noise: FloatArray, mask: BoolArray) -> BoolArray:
    """The voxels of the mask whose field can be believed, bool (x, y, z).

    residual: normalised misfit of the echoes' fit, 1 for noise alone.  noise: standard deviation of the field in any
    unit.  Both float32 (x, y, z), as every method of the stage `combine` gives them.
    """
    uncertainty = noise * np.maximum(residual, 1)
    if not mask.any():
        return mask.copy()
    return mask & (uncertainty <= TIMES_WORSE * np.median(uncertainty[mask]))
