from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.convert import geometry
from dicom_node.errors import NotConvertible

turns = st.tuples(*[st.floats(-np.pi, np.pi)] * 3)


def orientation(turn: tuple[float, float, float]) -> geometry.Orientation:
    """Row and column direction of an axial image turned about x, y and z."""
    axes = np.eye(3)
    for axis, angle in enumerate(turn):
        i, j = (k for k in range(3) if k != axis)
        rotation = np.eye(3)
        rotation[[i, j], [i, j]] = np.cos(angle)
        rotation[i, j], rotation[j, i] = -np.sin(angle), np.sin(angle)
        axes = rotation @ axes
    a, b, c, d, e, f = (float(cosine) for cosine in (*axes[:, 0], *axes[:, 1]))
    return a, b, c, d, e, f


@given(turns)
def test_b0_is_a_unit_vector_whose_image_in_the_patient_is_z(turn):
    directions = orientation(turn)
    b0 = np.array(geometry.b0_direction(directions))
    axes = np.array([directions[:3], directions[3:], geometry.normal(directions)]).T
    np.testing.assert_allclose(axes @ b0, [0, 0, 1], atol=1e-9)


@given(turns)
def test_the_affine_leads_from_the_first_voxel_to_the_last(turn):
    directions = orientation(turn)
    first = np.array([-11.0, 22.0, 33.0])
    last = first + 4 * 2.5 * geometry.normal(directions)
    affine = geometry.affine(directions, (0.5, 1.5), tuple(first), tuple(last), 5)
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [11, -22, 33, 1], atol=1e-8)
    np.testing.assert_allclose(affine @ [0, 0, 4, 1], [-last[0], -last[1], last[2], 1], atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), [1.5, 0.5, 2.5], atol=1e-8)
    assert np.linalg.det(affine) == pytest.approx(1.5 * 0.5 * 2.5)


@pytest.mark.parametrize(
    ("directions", "b0"),
    [
        ((1, 0, 0, 0, 1, 0), (0, 0, 1)),  # axial
        ((0, 1, 0, 0, 0, -1), (0, -1, 0)),  # sagittal: rows run towards the feet
        ((1, 0, 0, 0, 0, -1), (0, -1, 0)),  # coronal
        ((-1, 0, 0, 0, 1, 0), (0, 0, -1)),  # axial seen from the feet, mirrored
    ],
)
def test_b0_in_the_planes_of_the_body(directions, b0):
    assert geometry.b0_direction(directions) == pytest.approx(b0)


def test_directions_that_are_no_directions_are_refused():
    for directions in ((1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 0)):
        with pytest.raises(NotConvertible, match="orthogonal unit vectors"):
            geometry.normal(directions)


def test_spacing_comes_from_positions():
    assert geometry.slice_spacing([0.0, 3.6, 7.2001, 10.8]) == pytest.approx(3.6)
    with pytest.raises(NotConvertible, match="between slices 2 and 3"):
        geometry.slice_spacing([0.0, 2.0, 5.0, 7.0])
    with pytest.raises(NotConvertible, match="single slice"):
        geometry.slice_spacing([0.0])
