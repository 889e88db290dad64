"""The mean of the whole brain is zero: the reference that needs no anatomy and repeats best.

Straub et al. 2017, doi:10.1002/mrm.26353; Bilgic et al. 2024 (consensus), doi:10.1002/mrm.30006.
"""

from __future__ import annotations

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.maps import Reference


def whole_brain(chi: FloatArray, r2star: FloatArray | None, mask: BoolArray, geometry: Geometry) -> Reference:
    """chi: ppm, float32 (x, y, z).  mask: bool (x, y, z), all of which becomes the region.  r2star is not used."""
    return Reference("whole_brain", mask.copy(), 0.0, float(chi[mask].std()))
