"""The part of a mask whose surface is known, for methods that take the background's values from there."""

from __future__ import annotations

from scipy import ndimage

from reconstruction.acquisition import BoolArray
from reconstruction.arrays import like, to_numpy


def closed(mask: BoolArray, known: BoolArray) -> BoolArray:
    """The mask less those unknown voxels that are connected to its outside.

    An unknown voxel amid known ones has no say in these methods; one at the surface would be taken at its word.
    """
    filled: BoolArray = ndimage.binary_fill_holes(to_numpy(mask & known))
    return mask & like(filled, mask)
