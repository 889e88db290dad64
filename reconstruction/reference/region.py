"""A region of the atlas is zero: the lateral ventricles, or white matter, by anatomy and not by the map.

Both are among the references that the consensus lists (Bilgic et al. 2024, doi:10.1002/mrm.30006).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from reconstruction import quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.maps import Reference, Regions
from reconstruction.reference.whole_brain import whole_brain

STEADY = 3.0
"""Robust standard deviations from the region's median, in χ or R2*, beyond which a voxel is a vein, a lesion, plexus or
wall."""


def region(
    chi: FloatArray,
    r2star: FloatArray | None,
    mask: BoolArray,
    regions: Regions | None,
    geometry: Geometry,
    *,
    name: str = "lateral_ventricle",
    min_volume_ml: float = 0.5,
) -> Reference:
    """A named region without its rim.  Falls back to the whole brain, with a warning, when it is not there.

    chi: ppm, float32 (x, y, z).  r2star: 1/s (None for a single echo).  mask: bool (x, y, z).
    name: of one region, or of a structure's two sides.  min_volume_ml: less than this is not believed.
    """
    if regions is None or not regions.trusted:
        why = "the recipe or its caller asks for none" if regions is None else "they were withheld"
        quality.warn(f"reference: no region {name} ({why}); χ is relative to the whole brain")
        return whole_brain(chi, r2star, mask, geometry)
    try:
        found = ndimage.binary_erosion(regions.mask(name)) & mask
    except KeyError as error:
        quality.warn(f"reference: {error.args[0]}; χ is relative to the whole brain")
        return whole_brain(chi, r2star, mask, geometry)
    found &= _steady(chi, found)
    if r2star is not None:
        found &= _steady(r2star, found)
    volume_ml = found.sum() * geometry.voxel_volume / 1000
    quality.figure("reference.volume_ml", volume_ml)
    if volume_ml < min_volume_ml:
        quality.warn(
            f"reference: {volume_ml:.2f} ml of {name} found, at least {min_volume_ml:g} ml needed; "
            "χ is relative to the whole brain"
        )
        return whole_brain(chi, r2star, mask, geometry)
    return Reference(name, found, float(chi[found].mean() - chi[mask].mean()), float(chi[found].std()))


def _steady(values: FloatArray, where: BoolArray) -> BoolArray:
    """Voxels like most of those marked."""
    if not where.any():
        return where
    median = np.median(values[where])
    spread = 1.4826 * np.median(np.abs(values[where] - median))
    steady: BoolArray = np.abs(values - median) <= STEADY * spread
    return steady
