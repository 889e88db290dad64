"""Total variation with noise weights, for sources in the brain and for the background that is left around it.

    min over χ:  Σ_brain Huber((D χ − f) / σ)  +  τ h/σ̃ Σ_brain w |∇χ|  +  Σ_outside (χ / c)² / 2

Alternating directions with the dipole and the differences diagonal in k-space (FANSI: Milovic 2018,
doi:10.1002/mrm.27073).  Three things differ from it.  The misfit is counted in noise standard deviations σ and τ in
median ones σ̃ over a voxel's edge h, as thresholds are in denoising (Donoho 1995, doi:10.1109/18.382009): a number that
does not depend on field strength, echo times or voxel size.  The misfit grows linearly beyond some σ (MERIT's aim, Liu
2013, doi:10.1002/mrm.24272, as a convex function).  And what background removal has left is modelled as what it is, the
field of sources outside the brain, instead of as an arbitrary harmonic function (weak-harmonic QSM, Milovic 2019,
doi:10.1002/mrm.27483): since both are found together, local sources at the brain's edge are no longer given away to the
background.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from reconstruction import dipole, fourier, gradient, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.arrays import to_numpy
from reconstruction.fourier import Window, zeros_like
from reconstruction.inversion import _proximal
from reconstruction.noise import weights
from reconstruction.solvers import Values, alternating_directions
from reconstruction.stage import Count, Positive

MARGIN_MM = 14.0
"""Empty space between the brain and its periodic image: room for the outside sources next to the brain."""

OUTSIDE_PPM = 1.0
"""c: sources outside, after background removal, are expected to be smaller than bone against tissue (some ppm)."""

EDGE_FRACTION = 0.3
"""Share of voxels counted as edges of the magnitude (Liu 2012, doi:10.1016/j.neuroimage.2011.08.082)."""

RHO_FIELD, RHO_GRADIENT, RHO_OUTSIDE = 0.05, 0.001, 1.0
"""Penalties of the splittings: of D χ relative to the median weight of the data, of ∇χ relative to that per voxel edge
squared, of χ outside relative to the weight of outside sources.  They steer the speed: smaller ones than usual let the
brain and what lies around it exchange sooner what belongs to the other."""


def tv(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    magnitude: FloatArray,
    geometry: Geometry,
    *,
    strength: float = 0.08,
    edge_weight: float = 0.3,
    huber: Positive = 4.0,
    tolerance: float = 4e-3,
    max_iterations: Count = 80,
) -> FloatArray:
    """χ in ppm, float32 (x, y, z), 0 outside the mask.

    local_field, noise: ppm; noise may be inf where nothing is known.  mask: bool.  magnitude: arbitrary unit.
    strength: τ; larger is smoother.  edge_weight: w of the gradient where the magnitude has an edge
    (1 ignores the magnitude).  huber: σ beyond which the misfit counts linearly.
    tolerance: relative change of χ in one iteration at which to stop.
    """
    xp = array_namespace(local_field)
    window = Window.around(mask, geometry.voxel_size, MARGIN_MM)
    inside = window.cut(mask)
    data = window.cut(xp.where(mask & xp.isfinite(noise), local_field, 0.0))
    weight, sigma = weights(noise, mask)

    D = dipole.sampled(window.shape, geometry.voxel_size, geometry.b0_direction, data)
    edge = geometry.voxel_volume ** (1 / 3)
    per_gradient = strength * sigma * edge
    per_outside = (sigma / OUTSIDE_PPM) ** 2
    rho_gradient, rho_outside = RHO_GRADIENT * edge**2, RHO_OUTSIDE * per_outside
    normal = RHO_FIELD * D**2 + rho_gradient * gradient.spectrum(window.shape, geometry.voxel_size, data) + rho_outside

    data_weight = window.cut(weight)
    w = _edge_weights(window.cut(magnitude), inside, geometry, edge_weight)
    threshold = xp.where(inside, w * (per_gradient / rho_gradient), -1.0)
    strength_outside = xp.where(inside, xp.zeros_like(data), per_outside)
    u_field, u_outside, handed_field, handed_outside, right_side = (xp.zeros_like(data) for _ in range(5))
    u_gradient, handed_gradient = (zeros_like(data, (3, *window.shape)) for _ in range(2))

    def proximal(values: Values) -> Values:
        x, field = values
        _proximal.fidelity(field, u_field, handed_field, data, data_weight, RHO_FIELD, huber * sigma)
        _proximal.total_variation(x, u_gradient, handed_gradient, threshold, geometry.voxel_size)
        _proximal.ridge(x, u_outside, handed_outside, strength_outside, rho_outside)
        _proximal.together(handed_gradient, handed_outside, rho_gradient, rho_outside, geometry.voxel_size, right_side)
        return right_side, handed_field

    def project(targets: Values) -> Values:
        from_chi, from_field = targets
        spectrum = fourier.forward(from_field, window.shape)
        spectrum *= RHO_FIELD * D
        spectrum += fourier.forward(from_chi, window.shape)
        spectrum /= normal
        field = fourier.inverse(D * spectrum, window.shape)
        return fourier.inverse(spectrum, window.shape), field

    start = (xp.zeros_like(data), xp.zeros_like(data))
    chi, outcome = alternating_directions(
        proximal, project, start, inside, tolerance=tolerance, max_iterations=max_iterations
    )
    quality.convergence("inversion", outcome)
    pasted: FloatArray = window.paste(xp.where(inside, chi, 0.0))
    return pasted


def _edge_weights(magnitude: FloatArray, inside: BoolArray, geometry: Geometry, edge_weight: float) -> FloatArray:
    """w: 1 in even tissue, `edge_weight` at edges of the magnitude; the brain's own edge is none."""
    xp = array_namespace(magnitude)
    squares = xp.zeros_like(magnitude)
    for axis, step in enumerate(geometry.voxel_size):
        change = (xp.roll(magnitude, -1, axis=axis) - magnitude) / step
        squares = squares + xp.where(inside & xp.roll(inside, -1, axis=axis), change**2, 0.0)
    at = to_numpy(squares[inside])
    edge = squares > float(np.quantile(at, 1 - EDGE_FRACTION))
    weight: FloatArray = xp.where(edge, xp.full_like(squares, edge_weight), 1.0)
    return weight
