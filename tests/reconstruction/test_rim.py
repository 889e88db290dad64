"""Bone at the rim of a map is none of the brain."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction.acquisition import Geometry
from reconstruction.rim import without_bone


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_dark_voxels_of_the_rim_are_no_brain(size: float) -> None:
    """A calcification that reaches deeper stays, and so does what a picture cuts."""
    geometry = Geometry((40, 40, 40), (size, size, size), (0.0, 0.0, 1.0))
    mask = np.zeros(geometry.shape, bool)
    mask[5:35, 5:35, :30] = True
    chi = np.full(geometry.shape, -0.04, np.float32)
    chi[5, 10:20] = -0.3  # the skull
    chi[20:26, 20:26] = -1.5  # from the picture's end, where there is no rim, to the far side
    kept = without_bone(mask, chi, geometry)
    gone = np.argwhere(mask & ~kept)
    layers = 3 if size == 0.5 else 1
    assert (kept | (chi < -0.06))[mask].all()
    assert not kept[5, 10:20, :30].any()
    assert kept[20:26, 20:26, : 30 - layers].all()
    assert not kept[20:26, 20:26, 30 - layers : 30].any()
    assert len(gone) == 10 * 30 + 36 * layers
