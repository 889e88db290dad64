"""Where the planes of a stack lie, in plain numbers: the daemon groups by them, and holds no library of arrays.

Patient coordinates are DICOM's (LPS, mm).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

from dicom_node.model import Frame

Vector = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]

POSITION_TOLERANCE = 0.1
"""mm.  Planes nearer than this are one slice: headers round positions to about 0.001 mm, slices are 0.5 mm apart at
least."""
IN_PLANE_TOLERANCE = 0.5
"""mm by which origins of one stack may differ across its normal: direction cosines that were rounded to three digits
let them drift by 0.2 mm over 200 mm of slices."""
DIRECTION_TOLERANCE = 1e-3
"""Of direction cosines: 0.06°, or 0.25 mm at the edge of a 256 mm field of view."""


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
    steps = [later - earlier for earlier, later in pairwise(distances)]
    if len(steps) < 2:
        return []
    spacing = median(steps)
    return [(i, round(step / spacing) - 1) for i, step in enumerate(steps) if step > 1.5 * spacing]
