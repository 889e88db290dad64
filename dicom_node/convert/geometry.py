"""Where the planes of a stack lie: their order, spacing, direction of the main field, and affine.

Patient coordinates are DICOM's (LPS, mm) unless a name says RAS.  The normal is row × column direction (PS3.3
C.7.6.2.1.1); slices are ordered along it, so that array axes (column, row, slice) always form a right-handed system.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dicom_node.errors import NotConvertible
from dicom_node.model import Frame

Vector = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]

POSITION_TOLERANCE = 0.1
"""mm.  Planes nearer than this are one slice: headers round positions to about 0.001 mm, slices are 0.5 mm apart at
least."""
IN_PLANE_TOLERANCE = 0.5
"""mm by which origins of one stack may differ across its normal: direction cosines that were rounded to three digits
let them drift by 0.2 mm over 200 mm of slices."""
SPACING_TOLERANCE = 0.05
"""Share of the mean slice spacing by which single spacings may differ from it."""
DIRECTION_TOLERANCE = 1e-3
"""Of direction cosines: 0.06°, or 0.25 mm at the edge of a 256 mm field of view."""

_DECIMALS = 5
"""Of a spacing in mm (twice as many in the affine): two exports of one scan write positions
that differ in the 13th decimal, and must give the same grid."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def normal(orientation: Orientation) -> NDArray[np.float64]:
    """Unit normal of a plane.  Raises NotConvertible for directions that are not orthonormal."""
    row, column = np.asarray(orientation[:3], np.float64), np.asarray(orientation[3:], np.float64)
    lengths = float(row @ row), float(column @ column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row @ column))) > DIRECTION_TOLERANCE:
        raise NotConvertible(f"ImageOrientationPatient {orientation} is not two orthogonal unit vectors")
    across: NDArray[np.float64] = np.cross(row, column)
    across /= np.linalg.norm(across)
    return across


def image_coordinates(frame: Frame) -> Vector:
    """Coordinates (along row, along column, along normal) of a frame's origin, mm."""
    # Plain numbers: grouping asks this of every frame, where three small arrays cost ten times as much.
    x, y, z = frame.position
    a, b, c, d, e, f = frame.orientation
    normal_x, normal_y, normal_z = b * f - c * e, c * d - a * f, a * e - b * d
    return a * x + b * y + c * z, d * x + e * y + f * z, normal_x * x + normal_y * y + normal_z * z


def cluster(values: Iterable[float], tolerance: float) -> list[float]:
    """The lowest value of each cluster, ascending; a value that is more than `tolerance` above it begins another."""
    starts: list[float] = []
    for value in sorted(values):
        if not starts or value - starts[-1] > tolerance:
            starts.append(value)
    return starts


def missing_between(distances: Sequence[float]) -> list[tuple[int, int]]:
    """(slice, count) where `count` slices are missing behind slice `slice` (from 0), judged by the median spacing."""
    steps = np.diff(distances)
    if steps.size < 2:
        return []
    spacing = float(np.median(steps))
    return [(int(i), round(float(step) / spacing) - 1) for i, step in enumerate(steps) if step > 1.5 * spacing]


def slice_spacing(distances: Sequence[float]) -> float:
    """Spacing of ascending slice positions in mm.  Raises NotConvertible where they are not regular."""
    steps = np.diff(distances)
    if steps.size == 0:
        raise NotConvertible("the acquisition has a single slice; expected a volume of at least 2")
    spacing = float(steps.mean())
    worst = int(np.abs(steps - spacing).argmax())
    if abs(float(steps[worst]) - spacing) > SPACING_TOLERANCE * spacing:
        raise NotConvertible(
            f"slices are not regularly spaced: {steps[worst]:.3f} mm between slices {worst + 1} and {worst + 2}, "
            f"{spacing:.3f} mm on average; expected one spacing"
        )
    return round(spacing, _DECIMALS)


def b0_direction(orientation: Orientation) -> Vector:
    """The main field, along patient z, in array axes (column step, row step, slice)."""
    direction = np.array([orientation[2], orientation[5], normal(orientation)[2]])
    unit = direction / np.linalg.norm(direction)
    return float(unit[0]), float(unit[1]), float(unit[2])


def affine(
    orientation: Orientation, pixel_spacing: tuple[float, float], first: Vector, last: Vector, slices: int
) -> NDArray[np.float64]:
    """4×4: voxel (column, row, slice) → patient RAS in mm.

    pixel_spacing: (between rows, between columns).  first, last: ImagePositionPatient of the outer slices.
    """
    found = np.eye(4)
    found[:3, 0] = np.asarray(orientation[:3]) * pixel_spacing[1]
    found[:3, 1] = np.asarray(orientation[3:]) * pixel_spacing[0]
    found[:3, 2] = (np.asarray(last) - np.asarray(first)) / (slices - 1)
    found[:3, 3] = first
    ras: NDArray[np.float64] = np.round(_LPS_TO_RAS @ found, 2 * _DECIMALS)
    return ras
