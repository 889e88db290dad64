"""The skull's inner table, which a brain mask takes in here and there.

An inversion cannot do without it: a mask that leaves some brain out is worse for what lies next to that than one that
holds some bone.  In the map it is a black line round the brain, which is not brain and is taken off.
"""

from __future__ import annotations

from reconstruction import distance
from reconstruction.acquisition import BoolArray, FloatArray, Geometry

BONE_PPM = -0.06
"""χ below which a voxel of the rim is bone: white matter is not below −0.05 ppm."""

RIM_MM = 1.5
"""How deep bone may reach into a mask; a calcification at the surface reaches deeper, and what lies deeper stays."""


def without_bone(mask: BoolArray, chi: FloatArray, geometry: Geometry) -> BoolArray:
    """The mask without the diamagnetic voxels of its rim; where the picture ends there is no rim.

    mask: bool, chi: ppm, both (x, y, z).
    """
    dark = mask & (chi < BONE_PPM)
    if not dark.any():
        return mask
    rim = distance.depth(mask, geometry.voxel_size) <= max(RIM_MM, min(geometry.voxel_size))
    return mask & ~(dark & rim)
