from __future__ import annotations

import dataclasses
import itertools

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_node.encode.picture import draw
from reconstruction import Geometry, Maps
from tests.dicom_node.encode.example import maps, recipe

AXES = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product((1, -1), repeat=3))

SIZE = (1.0, 1.5, 2.0)
"""mm along the patient's right, anterior and head axes."""
RAS_SHAPE = (60, 70, 40)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("flips", FLIPS, ids=str)
def test_a_marker_at_the_patient_s_left_is_at_the_right(axes: tuple[int, ...], flips: tuple[int, ...]) -> None:
    """Whatever way the arrays run: left of the patient is right in the picture, anterior and head are up."""
    marked, affine = _marked(axes, flips)
    picture = np.asarray(draw(marked, affine, recipe())).astype(int)
    plain = np.asarray(draw(dataclasses.replace(marked, chi=np.zeros_like(marked.chi)), affine, recipe())).astype(int)
    rows, columns = np.nonzero(np.abs(picture - plain) > 40)
    # One blob in each plane of the upper row, told apart by the gaps between the planes.
    blobs = np.split(np.unique(columns), np.flatnonzero(np.diff(np.unique(columns)) > 20) + 1)
    assert len(blobs) == 3
    axial, coronal, sagittal = (float(blob.mean()) for blob in blobs)
    width, height = 60 * 1.0 * 2.5, 40 * 2.0 * 2.5
    depth = 70 * 1.5 * 2.5
    starts = (14, 14 + width + 14, 14 + 2 * (width + 14))
    assert axial > starts[0] + width / 2  # L
    assert coronal > starts[1] + width / 2  # L
    assert sagittal < starts[2] + depth / 2  # A
    middle = 58 + depth / 2  # the planes are centred on the tallest, the axial one
    for blob in blobs:
        assert rows[np.isin(columns, blob)].mean() < middle  # A in the axial plane, H in the others
    assert height < depth


def test_planes_have_the_aspect_of_the_head() -> None:
    marked, affine = _marked((0, 1, 2), (1, 1, 1))
    picture = draw(marked, affine, recipe())
    assert picture.width == pytest.approx((60 * 1.0 + 60 * 1.0 + 70 * 1.5) * 2.5 + 4 * 14 + 96, abs=3)
    assert picture.height == pytest.approx(2 * 70 * 1.5 * 2.5 + 58 + 34 + 2 * 14, abs=3)


def test_an_oblique_scan_with_an_empty_mask_is_drawn_too() -> None:
    empty = maps()
    nothing = np.zeros_like(empty.mask)
    oblique = np.array([[-0.5, 0.1, 0, 0], [0.1, -0.7, 0.3, 0], [0, 0.2, 2.5, 0], [0, 0, 0, 1]])
    drawn = draw(dataclasses.replace(empty, mask=nothing, brain_mask=nothing), oblique, recipe())
    assert drawn.mode == "L"


def test_the_same_maps_make_the_same_picture() -> None:
    marked, affine = _marked((0, 1, 2), (1, 1, 1))
    assert draw(marked, affine, recipe()).tobytes() == draw(marked, affine, recipe()).tobytes()


def _marked(axes: tuple[int, ...], flips: tuple[int, ...]) -> tuple[Maps, NDArray[np.float64]]:
    """A head whose left anterior upper quarter is bright, in arrays that run along `axes` in the directions `flips`."""
    ras = np.zeros(RAS_SHAPE, np.float32)
    ras[10:25, 45:60, 24:34] = 0.15  # RAS indices grow to the right: low x is left
    ras[10:32, 45:60, 18:34] = 0.15
    ras[10:32, 33:60, 24:34] = 0.15
    mask = np.ones(RAS_SHAPE, bool)
    affine = np.diag([*SIZE, 1.0])
    to_array = nib.orientations.ornt_transform(
        nib.io_orientation(affine), np.array([[axis, flip] for axis, flip in zip(axes, flips, strict=True)])
    )
    turned = nib.Nifti1Image(ras, affine).as_reoriented(to_array)
    shape = turned.shape
    size = tuple(float(s) for s in np.sqrt((turned.affine[:3, :3] ** 2).sum(axis=0)))
    template = maps()
    mask = np.ones(shape, bool)
    made = dataclasses.replace(
        template,
        geometry=Geometry(shape, size, (0.0, 0.0, 1.0)),
        chi=np.asarray(turned.dataobj, np.float32),
        magnitude=np.zeros(shape, np.float32),
        brain_mask=mask,
        mask=mask,
        reference=dataclasses.replace(template.reference, mask=mask),
    )
    return made, turned.affine
