"""The field from all echoes by a linear fit of the unwrapped phase, weighted by the squared magnitude.

Weights after Robinson et al. 2017, doi:10.1002/nbm.3601: the phase's variance goes as 1/|S|².
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
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fits the line φₑ = 2π f TEₑ through the origin.

    Arguments and results are those of `complex_fit`; every echo must be unwrapped rightly.
    """
    times = np.asarray(echo_times, np.float32)
    weight = magnitude * magnitude
    information = np.einsum("exyz,e->xyz", weight, times * times)
    known = mask & (information > 0)
    safe = np.where(known, information, np.float32(1))
    omega = np.where(known, np.einsum("exyz,exyz,e->xyz", weight, unwrapped, times) / safe, np.float32(0))
    misfit = np.zeros_like(omega)
    for e, time in enumerate(times):
        misfit += weight[e] * (unwrapped[e] - omega * time) ** 2
    freedom = times.size - 1
    sigma = noise_of_real_part(misfit, freedom, magnitude[0], mask)
    quality.figure("combine.misfit", excess_noise(sigma, magnitude, mask))
    deviation, residual = uncertainty(misfit, information, mask, sigma, freedom, times)
    return np.asarray(omega / TWO_PI, np.float32), deviation, residual
