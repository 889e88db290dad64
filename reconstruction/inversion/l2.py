"""Tikhonov regularisation of the gradient: a smooth map in closed form, or with edges of the magnitude by iteration.

    min over χ:  |D χ − f|² + λ |w ∇χ|²

Bilgic 2014, doi:10.1002/jmri.24365 (w = 1: one division in k-space; else conjugate gradients that are preconditioned
by that division); de Rochefort 2010, doi:10.1002/mrm.22187.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from reconstruction import fourier, gradient, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.inversion._problem import Problem, edge_weights
from reconstruction.solvers import conjugate_gradient
from reconstruction.stage import Count, Share


def l2(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    magnitude: FloatArray,
    geometry: Geometry,
    *,
    strength: float = 0.01,
    edge_weight: Share = 1.0,
    tolerance: float = 1e-2,
    max_iterations: Count = 30,
) -> FloatArray:
    """χ in ppm, float32 (x, y, z), 0 outside the mask.

    local_field, noise: ppm; of noise is used only where it is inf: there the field is taken for 0.  mask: bool.
    magnitude: arbitrary unit.
    strength: λ, for differences per voxel edge.  edge_weight: w where the magnitude has an edge; at 1 the map is in
    closed form and linear in the field.  tolerance: of the iteration with edges, relative residual.
    """
    xp = array_namespace(local_field)
    problem = Problem.of(local_field, noise, mask, geometry)
    D, shape, size = problem.dipole, problem.window.shape, geometry.voxel_size
    penalty = strength * geometry.voxel_volume ** (2 / 3)
    normal = D**2 + penalty * gradient.spectrum(shape, size, of=local_field)
    whitening = xp.where(normal > 0, normal, 1.0) ** -0.5
    if edge_weight == 1:
        return problem.solution(fourier.apply(D * whitening**2, problem.field))

    w = edge_weights(problem.window.cut(magnitude), problem.inside, geometry, edge_weight)

    def operator(x: FloatArray) -> FloatArray:
        chi = fourier.apply(whitening, x)
        smooth = gradient.adjoint(w**2 * gradient.forward(chi, size), size)
        return fourier.apply(whitening * D**2, chi) + penalty * fourier.apply(whitening, smooth)

    right_side = fourier.apply(whitening * D, problem.field)
    x, outcome = conjugate_gradient(
        operator, right_side, right_side, tolerance=tolerance, max_iterations=max_iterations
    )  # fmt: skip
    quality.convergence("inversion", outcome)
    return problem.solution(fourier.apply(whitening, x))
