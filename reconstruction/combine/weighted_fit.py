"""The field from all echoes by a linear fit of the unwrapped phase, weighted by the magnitude.

Weights after Robinson et al. 2017, doi:10.1002/nbm.3601: the phase's variance goes as 1/|S|².  The field map of ROMEO
(Dymerska et al. 2021, doi:10.1002/mrm.28563) gives each echo's frequency the weight of its phase's SNR, |S| TE, instead
of that squared.
"""

from __future__ import annotations

import numpy as np

from reconstruction import quality
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.combine.complex_fit import uncertainty
from reconstruction.noise import excess_noise, noise_of_real_part
from reconstruction.region_growing import TWO_PI


def weighted_fit(
    unwrapped: FloatArray,
    magnitude: FloatArray,
    echo_times: tuple[float, ...],
    mask: BoolArray,
    *,
    least_squares: bool = True,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fits the line φₑ = 2π f TEₑ through the origin.

    least_squares: each echo's frequency counts with (|S| TE)²; otherwise with |S| TE, as in ROMEO's field map, and
    noise is a little larger.
    Arguments and results are those of `complex_fit`; every echo must be unwrapped rightly.  The misfit is that of least
    squares either way: it says how well the echoes follow one frequency.
    """
    times = np.asarray(echo_times, np.float32)
    weight = magnitude * magnitude
    information = np.einsum("exyz,e->xyz", weight, times * times)
    known = mask & (information > 0)
    omega = _slope(weight, unwrapped, times, information, known)
    misfit = np.zeros_like(omega)
    for e, time in enumerate(times):
        misfit += weight[e] * (unwrapped[e] - omega * time) ** 2
    if not least_squares:
        lever = np.einsum("exyz,e->xyz", magnitude, times)
        omega = _slope(magnitude, unwrapped, np.ones_like(times), lever, known)
        information = lever**2 / times.size
    freedom = times.size - 1
    sigma = noise_of_real_part(misfit, freedom, magnitude[0], mask)
    quality.figure("combine.misfit", excess_noise(sigma, magnitude, mask))
    deviation, residual = uncertainty(misfit, information, mask, sigma, freedom, times)
    return np.asarray(omega / TWO_PI, np.float32), deviation, residual


def _slope(
    weight: FloatArray, unwrapped: FloatArray, times: FloatArray, total: FloatArray, known: BoolArray
) -> FloatArray:
    """Σ weight φ time / total in rad/s, float32 (x, y, z), 0 where nothing is known."""
    level = np.einsum("exyz,exyz,e->xyz", weight, unwrapped, times)
    return np.divide(level, total, out=np.zeros_like(level), where=known)
