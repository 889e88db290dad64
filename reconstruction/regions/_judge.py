"""Whether a brain lies on the template as a brain does: what is unlike one withholds the figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reconstruction.acquisition import BoolArray, Geometry

SMALLEST_ML = 100.0
THINNEST_MM = 40.0
"""A piece of brain with less volume, or thinner along any of its axes, fits in many places."""

LARGEST_TURN = 50.0
"""Degrees: further than a head can be turned in a coil, and further than the search goes."""

SCALES = (0.75, 1.35)
"""Of a head over the template, along its principal axes: adults lie within 0.85 and 1.2."""

LARGEST_BEND_MM = 12.0
"""What nine tenths of a brain are bent by less than: 3 to 9 mm in people, 15 and more when parts are confused."""

LEAST_LIKENESS = 0.57
"""Of the mean of magnitude's and χ's correlation with the template's.  Brains reach 0.61 to 0.8, in a slab too; what is
upside down, back to front, or no brain at all reaches 0.58 at most (`python -m benchmarks.regions --failures`)."""

LEAST_NUCLEI = 0.77
"""Of the correlation of χ with the template's around the nuclei, which are what is placed.  Brains reach 0.89 to 0.97,
one of 3 mm voxels with two echoes too; upside down 0.71 is the most, back to front 0.47 (same command)."""

LEAST_OVERLAP = 0.9
"""Dice of the outlines.  Brains reach 0.97."""


def of_geometry(geometry: Geometry, mask: BoolArray) -> str:
    """What forbids a registration before it is begun; empty where nothing does."""
    if geometry.affine is None:
        return "the patient's orientation is not known, so left cannot be told from right"
    if np.linalg.det(np.array(geometry.affine)) <= 0:
        return "the affine is mirrored (its axes are left-handed), so left cannot be told from right"
    volume = float(mask.sum()) * geometry.voxel_volume / 1000
    if volume < SMALLEST_ML:
        return f"only {volume:.0f} ml of brain were found; at least {SMALLEST_ML:.0f} ml are needed to place an atlas"
    extent = [np.ptp(np.flatnonzero(mask.any(axis=axes))) for axes in ((1, 2), (0, 2), (0, 1))]
    thinnest = min((n + 1) * size for n, size in zip(extent, geometry.voxel_size, strict=True))
    if thinnest < THINNEST_MM:
        return f"the brain was acquired over {thinnest:.0f} mm only; at least {THINNEST_MM:.0f} mm place an atlas"
    return ""


def of_match(match: Mapping[str, float]) -> str:
    """What makes the brain unlike the template; empty where nothing does.  match: see `Registration`."""
    low, high = SCALES
    if match["turn"] > LARGEST_TURN:
        return f"the head is turned by {match['turn']:.0f}° against the template; at most {LARGEST_TURN:.0f}° are sure"
    if match["smallest_scale"] < low or match["largest_scale"] > high:
        found = f"{match['smallest_scale']:.2f} to {match['largest_scale']:.2f}"
        return f"the template fits only when it is stretched by {found}; heads differ by {low:g} to {high:g}"
    if match["bend"] > LARGEST_BEND_MM:
        return f"the template was bent by {match['bend']:.0f} mm; brains differ by less than {LARGEST_BEND_MM:.0f} mm"
    likeness = (match["magnitude"] + match["chi"]) / 2
    if likeness < LEAST_LIKENESS or match["overlap"] < LEAST_OVERLAP:
        return (
            f"the brain is unlike the template where it was laid over it: contrasts correlate by {likeness:.2f} "
            f"(at least {LEAST_LIKENESS:g}), outlines overlap by {match['overlap']:.2f} (at least {LEAST_OVERLAP:g})"
        )
    if match.get("nuclei", 1.0) < LEAST_NUCLEI:
        return (
            f"the brain is unlike the template where the nuclei were laid: χ around them correlates by "
            f"{match['nuclei']:.2f} (at least {LEAST_NUCLEI:g})"
        )
    return ""
