"""The sign of the phase, by what anatomy does to it.

Turning the sign turns that of the field, of χ and of every odd figure made of them.  Three odd figures that anatomy
makes positive are taken together:

- the field in the brain against the one that its dark surroundings would make were they air (Marques & Bowtell 2005,
  doi:10.1002/cmr.b.20034): positive above and below the cavities along B₀, negative beside them;
- the skewness of χ: iron and deoxygenated blood reach further to the paramagnetic side than myelin and calcium to the
  other (Schweser 2011, doi:10.1016/j.neuroimage.2010.10.070);
- χ where the last echo is darkest: what loses its signal fastest, nuclei and veins, is paramagnetic.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.evidence import Evidence, bounded
from reconstruction.preview import Preview

AIR_CORRELATION, AIR_SHARE = 0.25, 1.5
"""Suffices alone, and how much more than sufficient a higher one may count: whole heads have 0.33 and more, simulated
ones and a real one."""

SKEWNESS, DARK_CHI = 0.6, 0.7
"""Count fully, the second in standard deviations of χ: 0.5 … 2 and 0.7 … 1.6 in simulated heads at 3 and 7 T; noise
brings both down at 1.5 T."""

CHI_SHARE = 0.5
"""What each of χ's two figures weighs: neither decides alone, both together do.  In single slabs at the base of the
skull either was seen to turn."""

BELIEVABLE_PPM = 0.1
"""SD of χ beyond which the preview shows noise or its own rim; brains have 0.03 … 0.06."""

ENOUGH_CM3 = 20.0
"""Less thick tissue than this is no brain to judge by."""

DARKEST = 0.03
"""Share of voxels that counts as darkest."""

NEARBY_VOXELS = 3.0
"""Standard deviation of the Gaussian whose mean "dark" is measured against."""


def evidence_of_sign(coarse: Preview) -> tuple[Evidence, ...]:
    volume = _cm3(coarse, coarse.mask)
    if volume < ENOUGH_CM3:
        return (Evidence("brain", volume, 0.0, f"{volume:.0f} cm³ of brain are too little to judge the sign by"),)
    return (_air(coarse), *_tissue(coarse))


def _cm3(coarse: Preview, mask: BoolArray) -> float:
    return float(mask.sum()) * coarse.geometry.voxel_volume / 1000


def _air(coarse: Preview) -> Evidence:
    """Field against that of the dark places, both without what a second-order shim makes or takes."""
    shim = _second_order(coarse.mask)
    both = np.stack([coarse.field[coarse.mask], coarse.expected[coarse.mask]])
    both -= np.linalg.lstsq(shim @ shim.T, shim @ both.T, rcond=None)[0].T @ shim
    found, expected = both
    norm = float(np.linalg.norm(found) * np.linalg.norm(expected))
    value = float(found @ expected) / norm if norm > 0 else 0.0
    sentence = f"the field correlates by {value:+.2f} with the one that air around the brain would make"
    return Evidence("air_cavities", value, AIR_SHARE * bounded(value / (AIR_SHARE * AIR_CORRELATION)), sentence)


def _second_order(mask: BoolArray) -> FloatArray:
    """The ten polynomials of up to second order at the mask's voxels, each axis of the volume from −1 to 1."""
    axes = (np.linspace(-1, 1, n, dtype=np.float32) for n in mask.shape)
    x, y, z = (along[places] for along, places in zip(axes, np.nonzero(mask), strict=True))
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z])


def _tissue(coarse: Preview) -> tuple[Evidence, ...]:
    """χ's two figures; they say nothing where χ is noise."""
    if _cm3(coarse, coarse.inner) < ENOUGH_CM3:
        return ()
    chi = coarse.chi[coarse.inner]
    low, middle, high = np.percentile(chi, (0.1, 50, 99.9))
    chi = np.clip(chi, low, high) - np.float32(middle)
    sd = float(chi.std())
    if not 0 < sd < BELIEVABLE_PPM:
        sentence = f"χ in a quick preview spreads by {1000 * sd:.0f} ppb, which does not tell tissue from noise"
        return (Evidence("chi_preview", sd, 0.0, sentence),)
    skewness = float(np.mean(chi**3)) / sd**3
    last = coarse.magnitude[-1]
    nearby = ndimage.gaussian_filter(last, NEARBY_VOXELS)[coarse.inner]
    contrast = last[coarse.inner] / np.maximum(nearby, np.finfo(np.float32).tiny)
    dark = float(chi[contrast <= np.quantile(contrast, DARKEST)].mean()) / sd
    return (
        Evidence(
            "skewness_of_chi",
            skewness,
            CHI_SHARE * bounded(skewness / SKEWNESS),
            f"χ in a quick preview has a skewness of {skewness:+.2f}",
        ),
        Evidence(
            "chi_of_dark_tissue",
            dark,
            CHI_SHARE * bounded(dark / DARK_CHI),
            f"tissue that is dark in the last echo has χ of {dark:+.2f} standard deviations",
        ),
    )
