"""Cerebrospinal fluid of the ventricles: found near the middle of the brain by its low R2*.

Liu et al. 2018, doi:10.1002/mrm.26946: R2* below 5/s (at 3 T), within 30 mm of the brain's centroid, only the largest
connected regions.  Here a region must also be smooth in χ, and large enough to be a ventricle.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from reconstruction import quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.maps import Reference
from reconstruction.pieces import centroid
from reconstruction.reference.whole_brain import whole_brain

CENTRAL_RADIUS_MM = 30.0
"""The paper's: the lateral ventricles' bodies lie within it, the sulci do not."""

REGIONS = 3
"""The paper's: left, right and third ventricle."""

SHARE_OF_TISSUE = 0.25
"""Of the brain's median R2*: fluid lies below it at any field.  At 3 T it is the paper's 5/s over tissue's 20/s,
which at 7 T is 30 to 37/s (T2* of 33 and 27 ms: Peters 2007, doi:10.1016/j.mri.2007.02.014)."""

QUIET_MM = 3.0
"""Width over which R2* is averaged first: where SNR is low its noise else leaves holes in fluid."""

STEADY = 3.0
"""Voxels further from the region's median χ than this many robust standard deviations are plexus, vein or wall."""


def csf(
    chi: FloatArray,
    r2star: FloatArray | None,
    mask: BoolArray,
    geometry: Geometry,
    *,
    max_r2star: float = 5.0,
    min_volume_ml: float = 0.5,
) -> Reference:
    """The ventricles' fluid.  Falls back to the whole brain, with a warning, when it is not found.

    chi: ppm, float32 (x, y, z).  r2star: 1/s (None for a single echo).  mask: bool (x, y, z).
    max_r2star: 1/s; fluid decays more slowly, or at less than a quarter of the brain's median where that is more.
    min_volume_ml: less than this is not believed.
    """
    if r2star is None:
        quality.warn("reference: no R2* to find CSF by (a single echo); χ is relative to the whole brain")
        return whole_brain(chi, r2star, mask, geometry)
    region = ventricles(r2star, mask, geometry, max_r2star)
    if region.any():
        median = np.median(chi[region])
        spread = 1.4826 * np.median(np.abs(chi[region] - median))
        region &= np.abs(chi - median) <= STEADY * spread
    volume_ml = region.sum() * geometry.voxel_volume / 1000
    quality.figure("reference.volume_ml", volume_ml)
    if volume_ml < min_volume_ml:
        quality.warn(
            f"reference: {volume_ml:.2f} ml of ventricular CSF found, at least {min_volume_ml:g} ml needed; "
            "χ is relative to the whole brain"
        )
        return whole_brain(chi, r2star, mask, geometry)
    return Reference("csf", region, float(chi[region].mean() - chi[mask].mean()), float(chi[region].std()))


def ventricles(r2star: FloatArray, mask: BoolArray, geometry: Geometry, max_r2star: float) -> BoolArray:
    """The largest connected regions of slow decay near the brain's centroid, without their rim.

    r2star: 1/s, float32 (x, y, z).  mask: bool.  max_r2star: as in `csf`.
    """
    region = np.zeros_like(mask)
    if not mask.any():
        return region
    limit = max(max_r2star, SHARE_OF_TISSUE * float(np.median(r2star[mask])))
    offsets = [(np.arange(n) - c) * s for n, c, s in zip(mask.shape, centroid(mask), geometry.voxel_size, strict=True)]
    central = [np.flatnonzero(np.abs(offset) < CENTRAL_RADIUS_MM) for offset in offsets]
    if not all(part.size for part in central):
        return region
    box = tuple(slice(int(part[0]), int(part[-1]) + 1) for part in central)
    x, y, z = (offset[part] ** 2 for offset, part in zip(offsets, box, strict=True))
    near = x[:, None, None] + y[None, :, None] + z[None, None, :] < CENTRAL_RADIUS_MM**2
    widths = [2 * round((QUIET_MM / size - 1) / 2) + 1 for size in geometry.voxel_size]
    quiet = ndimage.uniform_filter(r2star[box], [max(1, width) for width in widths])
    slow = mask[box] & near & (quiet < limit)
    labels, count = ndimage.label(slow)
    if count == 0:
        return region
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = np.argsort(sizes)[::-1][:REGIONS]
    in_plane = ndimage.generate_binary_structure(3, 1)
    kept = np.isin(labels, largest[sizes[largest] > 0])
    region[box] = ndimage.binary_erosion(kept, in_plane)
    return region
