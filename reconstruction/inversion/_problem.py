"""What an inversion begins and ends with: the brain's box, its field where it is known, the weights, the dipole."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

from array_api_compat import array_namespace

from reconstruction import dipole, gradient
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.fourier import Window
from reconstruction.noise import weights

MARGIN_MM = 20.0
"""Empty space between the brain and its periodic image."""

PHASE_NOISE = 0.02
"""Radian: the noise of an echo of SNR 50, as a gradient echo of the brain has near TE = T2*."""

EDGE_FRACTION = 0.3
"""Share of differences counted as edges of the magnitude (Liu 2012, doi:10.1016/j.neuroimage.2011.08.082)."""

STRONGEST = 0.999
"""Share of the voxels whose phase must not wrap: veins and bleeds may, which is what nonlinear inversion is for."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A field to be inverted, in the window of its brain.

    inside: bool, the mask.  field: ppm, 0 where nothing is known.  weight: (σ̃/σ)², 0 where nothing is known.
    sigma: σ̃, the median noise in ppm.  dipole: the half spectrum D.
    """

    window: Window
    inside: BoolArray
    field: FloatArray
    weight: FloatArray
    sigma: float
    dipole: FloatArray

    @classmethod
    def of(cls, local_field: FloatArray, noise: FloatArray, mask: BoolArray, geometry: Geometry) -> Problem:
        """local_field, noise: ppm; noise inf where nothing is known.  mask: bool.  All (x, y, z).

        Raises NotReconstructible when nothing is known, or the mask is empty."""
        xp = array_namespace(local_field)
        window = Window.around(mask, geometry.voxel_size, MARGIN_MM)
        weight, sigma = weights(noise, mask)
        return cls(
            window=window,
            inside=window.cut(mask),
            field=window.cut(xp.where(weight > 0, local_field, 0.0)),
            weight=window.cut(weight),
            sigma=sigma,
            dipole=dipole.sampled(window.shape, geometry.voxel_size, geometry.b0_direction, of=local_field),
        )

    def solution(self, chi: FloatArray) -> FloatArray:
        """χ of the window as an image of the acquisition's grid, 0 outside the mask."""
        xp = array_namespace(chi)
        return self.window.paste(xp.where(self.inside, chi, 0.0))

    def radians_per_ppm(self) -> float:
        """The echo time, so to speak, at which a nonlinear data term exp(i φ) looks at the field.

        A field map of several echoes has no echo time of its own.  So it is turned to the phase of that echo whose
        noise is what such echoes' is; or of an earlier one, in which the brain's strongest local fields do not wrap.
        """
        xp = array_namespace(self.field)
        strongest = float(quantile(xp.abs(self.field[self.weight > 0]), STRONGEST))
        return PHASE_NOISE / self.sigma if strongest == 0 else min(PHASE_NOISE / self.sigma, pi / strongest)


def quantile(values: FloatArray, share: float) -> FloatArray:
    """The value that `share` of the values (n,) lie below, without interpolation; a scalar array."""
    xp = array_namespace(values)
    return xp.sort(values)[round(share * (values.shape[0] - 1))]


def edge_weights(magnitude: FloatArray, inside: BoolArray, geometry: Geometry, edge_weight: float) -> FloatArray:
    """w (3, x, y, z): `edge_weight` for the differences of the magnitude in the brain that are largest, 1 elsewhere."""
    xp = array_namespace(magnitude)
    steepness = xp.abs(gradient.forward(magnitude, geometry.voxel_size))
    for axis in range(3):
        along = steepness[axis, ...]
        edge = inside & (along > quantile(along[inside], 1 - EDGE_FRACTION))
        steepness[axis, ...] = 1 - (1 - edge_weight) * xp.astype(edge, along.dtype)
    return steepness


def shrink(values: FloatArray, threshold: FloatArray | float) -> FloatArray:
    """Soft thresholding: what is within the threshold becomes 0, the rest comes nearer to 0 by it."""
    xp = array_namespace(values)
    beyond = xp.abs(values) - threshold
    return xp.where(beyond > 0, xp.sign(values) * beyond, 0.0)
