"""The default mask: BET's surface, less what has no trustworthy signal at its rim.

The surface (Smith 2002, doi:10.1002/hbm.10062) knows what a brain looks like but cuts through air cavities and bone;
ROMEO's quality map (Dymerska 2021, doi:10.1002/mrm.28563) knows where phase means something but not what is brain.
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.errors import NotReconstructible
from reconstruction.intensity import even_intensity, percentile
from reconstruction.mask._coherence import Opening, coherence, opened
from reconstruction.mask.bet import MINIMUM_CM3, surface_mask
from reconstruction.pieces import box_of, largest_piece, without_holes
from reconstruction.stage import Share

SIGNAL = 0.25
"""Part of the local mean below which a voxel at the rim is bone or air: compact bone gives 0.1, CSF 0.5 and more."""

INCOHERENT = 0.2
"""Median ROMEO quality of a brain whose phase says nothing: 0.1 for random phase, 0.4 at an SNR of 6, 0.9 at 60."""


def brain(
    phase: FloatArray,
    magnitude: FloatArray,
    echo_times: tuple[float, ...],
    geometry: Geometry,
    *,
    fraction: Share = 0.7,
    quality: Share = 0.45,
    opening_mm: Opening = 2.0,
) -> BoolArray:
    """The brain, with its ventricles, veins and lesions, without incoherent tissue at the rim.

    phase, magnitude: float32 (echo, x, y, z), radian (phase offset removed) and arbitrary unit.  echo_times: s.
    fraction: BET's b_t; smaller values give a larger brain.  quality: part of the brain's median ROMEO quality below
    which a voxel is left out unless the mask encloses it: noise has 0.1, dephased rims 0.2 … 0.4, tissue above 0.6.
    opening_mm: what hangs on by less than twice this width is cut off.
    Returns bool (x, y, z), in one piece.  Raises NotReconstructible when there is no brain.
    """
    image = even_intensity(magnitude, geometry)
    surface = surface_mask(image, geometry, fraction)
    box = box_of(surface)
    surface = surface[box]
    coherent = coherence(phase[:, *box], magnitude[0][box], echo_times)
    typical = percentile(coherent, 50, surface)
    reliable = surface & (image[box] > SIGNAL) & (coherent > quality * typical)
    if typical < INCOHERENT:
        raise NotReconstructible(
            "the phase inside the brain is incoherent everywhere; expected coherent phase: check that the phase images "
            "belong to the magnitude and were not scaled or filtered"
        )
    largest = largest_piece(opened(reliable, geometry, opening_mm))
    if not largest.any():
        raise NotReconstructible(
            f"nothing of the brain is coherent (quality {quality:g}) and wider than twice {opening_mm:g} mm; expected "
            "most of it: set a lower quality or opening_mm, or check the phase images"
        )
    filled = np.zeros(geometry.shape, bool)
    filled[box] = without_holes(largest)
    volume = np.count_nonzero(filled) * geometry.voxel_volume / 1000
    if volume < MINIMUM_CM3:
        raise NotReconstructible(
            f"only {volume:.0f} cm³ of the brain have coherent phase; expected at least {MINIMUM_CM3:.0f}: check that "
            "the phase images belong to the magnitude"
        )
    return filled
