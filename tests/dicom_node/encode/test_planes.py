from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_node.encode.planes import AXIAL, CORONAL, PLANES, SAGITTAL, View, cut, grey, obliqueness, outline

SIZE = (1.0, 1.5, 2.0)
"""mm along the patient's right, anterior and head axes."""
RAS_SHAPE = (30, 35, 20)
AFFINE = np.diag([*SIZE, 1.0])


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)), ids=str)
def test_a_marker_at_the_patient_s_left_is_at_the_right(axes: tuple[int, ...], flips: tuple[int, ...]) -> None:
    """Whatever way the arrays run: left of the patient is right in the picture, anterior and head are up."""
    marked = np.zeros(RAS_SHAPE, np.float32)
    marked[5:8, 25:30, 14:18] = 1  # RAS indices grow to the right: low x is left
    turned = _turned(marked, axes, flips)
    volume = np.asarray(turned.dataobj)
    view = View.of(np.ones(volume.shape, bool), turned.header.get_zooms(), turned.affine)
    ras = view.turn(volume)
    np.testing.assert_array_equal(ras, marked)
    assert view.size == pytest.approx(SIZE)
    for plane, index, right, up in ((AXIAL, 15, True, True), (CORONAL, 27, True, True), (SAGITTAL, 6, False, True)):
        picture = cut(ras, plane, index)
        rows, columns = np.nonzero(picture)
        assert (columns.mean() > picture.shape[1] / 2) == right, plane.name
        assert (rows.mean() < picture.shape[0] / 2) == up, plane.name


def test_letters_name_the_edges() -> None:
    assert [(p.left, p.right, p.top, p.bottom) for p in PLANES] == [
        ("R", "L", "A", "P"),
        ("R", "L", "S", "I"),
        ("A", "P", "S", "I"),
    ]


def test_planes_have_the_aspect_of_the_head() -> None:
    view = View.of(np.ones(RAS_SHAPE, bool), SIZE, AFFINE)
    assert [view.extent(RAS_SHAPE, plane) for plane in PLANES] == [(30, 52.5), (30, 40), (52.5, 40)]


def test_an_oblique_scan_is_shown_in_its_nearest_axes() -> None:
    oblique = np.array([[-0.5, 0.1, 0, 0], [0.1, -0.7, 0.3, 0], [0, 0.2, 2.5, 0], [0, 0, 0, 1]])
    volume = np.arange(24.0).reshape(2, 3, 4)
    view = View.of(np.zeros(volume.shape, bool), (0.5, 0.75, 2.5), oblique)
    np.testing.assert_array_equal(view.turn(volume), volume[::-1, ::-1])


def test_the_picture_is_cut_to_the_brain() -> None:
    brain = np.zeros((60, 60, 60), bool)
    brain[20:40, 25:35, 30:32] = True
    view = View.of(brain, (1, 1, 1), np.eye(4))
    assert view.turn(brain).shape == (20 + 4, 10 + 4, 2 + 4)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)], ids=str)
def test_a_plane_knows_where_it_lies(axes: tuple[int, ...], flips: tuple[int, ...]) -> None:
    """However the arrays run, and whatever of them is cut away."""
    brain = np.zeros(RAS_SHAPE, np.float32)
    brain[10:20, 5:30, 6:15] = 1
    turned = _turned(brain, axes, flips)
    held = np.asarray(turned.dataobj) > 0
    view = View.of(held, turned.header.get_zooms(), turned.affine)
    ras = view.turn(held)
    for plane, first in ((SAGITTAL, 10), (CORONAL, 5), (AXIAL, 6)):
        index = int(np.flatnonzero(ras.any(axis=tuple({0, 1, 2} - {plane.across})))[0])
        assert view.position(plane, index, ras.shape) == pytest.approx(first * SIZE[plane.across])


def test_an_oblique_scan_is_known_by_its_angle() -> None:
    assert obliqueness(np.diag([-1.0, 2.0, 3.0, 1.0])) == 0
    assert obliqueness(np.eye(4)[[1, 2, 0, 3]]) == 0
    tilt = np.radians(25)
    tilted = np.eye(4)
    tilted[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    assert obliqueness(tilted @ np.diag([0.5, 1, 3, 1])) == pytest.approx(25)


def test_grey_runs_from_black_to_white() -> None:
    levels = np.asarray(grey(np.array([[-200.0, -150.0, 25.0, 200.0, 999.0]]), -150, 200, (5, 1)))
    assert levels[0, 0] == 0
    assert levels[0, -1] == 255
    assert 110 < levels[0, 2] < 145


def test_an_outline_runs_around_a_region_and_not_over_it() -> None:
    region = np.zeros((20, 20), bool)
    region[5:15, 5:15] = True
    rim = outline(region, (200, 200), 2)
    assert not rim[100, 100]
    assert not rim[20, 20]
    assert rim[100].sum() == 4
    assert outline(np.zeros((20, 20), bool), (200, 200), 2).sum() == 0


def _turned(ras: NDArray[np.float32], axes: tuple[int, ...], flips: tuple[int, ...]) -> nib.Nifti1Image:
    to_array = nib.orientations.ornt_transform(
        nib.io_orientation(AFFINE), np.array([[axis, flip] for axis, flip in zip(axes, flips, strict=True)])
    )
    return nib.Nifti1Image(ras, AFFINE).as_reoriented(to_array)
