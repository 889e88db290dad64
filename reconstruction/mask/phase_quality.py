"""A mask of what has coherent phase, brain or not: no surface is looked for.

Hagberg et al. 2022, doi:10.1002/mrm.29368, for taking phase itself as the mask; ROMEO's quality (Dymerska 2021,
doi:10.1002/mrm.28563) as its measure, as in QSMxT (Stewart 2022, doi:10.1002/mrm.29048).
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.errors import NotReconstructible
from reconstruction.intensity import even_intensity
from reconstruction.mask._coherence import Opening, coherence, eroded, opened
from reconstruction.mask.brain import INCOHERENT
from reconstruction.pieces import largest_piece, without_holes
from reconstruction.stage import Few, Share

TISSUE = 0.4
"""Part of the local mean above which a voxel is soft tissue: above bone, below CSF."""


def phase_quality(
    phase: FloatArray,
    magnitude: FloatArray,
    echo_times: tuple[float, ...],
    geometry: Geometry,
    *,
    quality: Share = 0.45,
    opening_mm: Opening = 2.0,
    fill: bool = True,
    erosions: Few = 0,
) -> BoolArray:
    """The largest piece of coherent tissue, bool (x, y, z).  In a head that may hold scalp and muscle beside the brain.

    phase, magnitude: float32 (echo, x, y, z), radian (phase offset removed) and arbitrary unit.  echo_times: s.
    quality: part of the tissue's median ROMEO quality that a voxel must have: noise has 0.1, tissue above 0.6.
    opening_mm: what hangs on by less than twice this width is cut off, such as scalp by its vessels.
    fill: close the holes that bleeds and veins leave.
    erosions: layers of voxels to take off in the end.
    Works where BET does not: phantoms, other organs, parts of a head.  Raises NotReconstructible when no phase is
    coherent.
    """
    image = even_intensity(magnitude, geometry)
    coherent = coherence(phase, magnitude[0], echo_times)
    tissue = image > TISSUE
    typical = float(np.median(coherent[tissue])) if tissue.any() else 0.0
    if typical < INCOHERENT:
        raise NotReconstructible(
            "the phase is incoherent everywhere; expected coherent phase in tissue: check that the phase images belong "
            "to the magnitude and were not scaled or filtered"
        )
    largest = largest_piece(opened(coherent > quality * typical, geometry, opening_mm))
    if not largest.any():
        raise NotReconstructible(
            f"nothing is coherent (quality {quality:g}) and wider than twice {opening_mm:g} mm; expected tissue: set a "
            "lower quality or opening_mm, or check the phase images"
        )
    return eroded(without_holes(largest) if fill else largest, erosions)
