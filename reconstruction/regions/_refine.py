"""Moves the outline of a nucleus to where the map shows it, within what the atlas allows.

A nucleus rich in iron stands out of what surrounds it.  Where it does so clearly, each voxel near its outline is asked
how much more of the nucleus its χ shows than the atlas puts there, and the atlas' depth is shifted by that answer, by
no more than a bound in mm.  Where it does not, the atlas' outline stays.

What the atlas puts there counts voxels that the outline cuts as cut: a map that agrees with the atlas moves nothing.
Asked only whether it is nucleus or surroundings, a small round nucleus, most of whose voxels are cut, would shrink to
its bright core.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.pieces import Box
from reconstruction.regions._template import EDGE

CORE = 0.7
"""Depth (log of density over threshold, about mm) from which a voxel is all nucleus."""

SURROUNDINGS = (-3.5, -1.0)
"""Depths of what a nucleus is compared with."""

FEWEST = 12
"""Voxels of core and of surroundings below which what is typical of them is not known."""

OWN = 65.0
"""Percentile of χ in the core that is the nucleus' own, counted away from its surroundings: where a nucleus is smaller
than the atlas', half of what the atlas takes for its core may be surroundings."""

CLEAR = 1.5
"""Difference of the two over the robust standard deviation within the core's further half and the surroundings from
which a nucleus is clearly shown."""

BLUR = 1.5
"""Width of an edge in the map over that of one whose voxels are cut: without it small nuclei shrink."""

SMOOTHING_VOXELS = 0.7
"""SD of the Gaussian over what the voxels say: an outline is smoother than the map's noise."""


def refined(
    outlines: Mapping[str, tuple[Box, FloatArray]],
    names: tuple[str, ...],
    chi: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    bound_mm: float,
) -> dict[str, tuple[Box, FloatArray]]:
    """The depths of all regions, those of `names` shifted by up to `bound_mm` where χ shows the region clearly."""
    across = BLUR * float(np.hypot(EDGE, np.cbrt(geometry.voxel_volume)))
    inside = np.zeros(mask.shape, bool)
    for name in names:
        if name in outlines:
            box, depth = outlines[name]
            inside[box] |= depth > 0
    found = dict(outlines)
    for name in names:
        if name in outlines:
            box, depth = outlines[name]
            more = _more(chi[box], depth, mask[box], inside[box], across)
            found[name] = box, depth + np.float32(bound_mm) * np.clip(more, -1, 1)
    return found


def _more(chi: FloatArray, depth: FloatArray, mask: BoolArray, nuclei: BoolArray, across: float) -> FloatArray:
    """From −2 to 2: how much more of the nucleus χ shows in every voxel than its depth makes one expect, of half a
    voxel; 0 everywhere where nucleus and surroundings do not differ clearly.

    nuclei: this one and all others.  across: mm of depth over which the expected share goes from surroundings to
    nucleus.
    """
    core = mask & (depth > CORE)
    low, high = SURROUNDINGS
    around = mask & ~nuclei & (depth > low) & (depth < high)
    if min(core.sum(), around.sum()) < FEWEST:
        return np.zeros_like(depth)
    middle, other = np.median(chi[core]), np.median(chi[around])
    further = chi[core] >= middle if middle >= other else chi[core] <= middle
    own = np.percentile(chi[core], OWN if middle >= other else 100 - OWN)
    spread = np.sqrt((deviation(chi[core][further]) ** 2 + deviation(chi[around]) ** 2) / 2)
    if abs(own - other) < CLEAR * spread:
        return np.zeros_like(depth)
    # Both: −1 in the surroundings, 0 halfway, 1 in the nucleus.
    shown = np.where(mask, np.clip((2 * chi - own - other) / (own - other), -1, 1), -1)
    expected = np.clip(2 * depth / across, -1, 1)
    elsewhere = nuclei & (depth <= 0)  # a neighbour's iron is no sign of this nucleus
    more = np.where(elsewhere, 0, shown - expected)
    return ndimage.gaussian_filter(more, SMOOTHING_VOXELS, output=np.float32, mode="nearest")


def deviation(values: FloatArray) -> float:
    """Robust standard deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
