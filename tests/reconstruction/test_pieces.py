"""The box, the pieces and the holes of a mask."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from reconstruction.pieces import box_of, centroid, largest_piece, without_holes


@pytest.mark.parametrize("density", [0.2, 0.6, 0.9])
def test_of_random_masks(density: float) -> None:
    mask = np.random.default_rng(5).random((11, 9, 14)) < density
    mask[0] = mask[:, :, 9:] = False
    assert box_of(mask) == ndimage.find_objects(mask.astype(np.uint8))[0]
    assert centroid(mask) == pytest.approx(ndimage.center_of_mass(mask))
    np.testing.assert_array_equal(without_holes(mask), ndimage.binary_fill_holes(mask))
    pieces, count = ndimage.label(mask)
    piece = largest_piece(mask)
    assert piece.sum() == max((pieces == n).sum() for n in range(1, count + 1))
    assert ndimage.label(piece)[1] == 1


def test_what_is_open_at_the_edge_of_the_volume_is_no_hole() -> None:
    mask = np.ones((5, 5, 5), bool)
    mask[2, 2, 2:] = False
    np.testing.assert_array_equal(without_holes(mask), mask)


def test_an_empty_mask_has_no_piece() -> None:
    nothing = np.zeros((3, 4, 5), bool)
    assert not largest_piece(nothing).any()
    assert not without_holes(nothing).any()
