"""Morphology enabled dipole inversion with MERIT, spherical means and a uniform ventricular fluid (MEDI+0).

    min over χ:  λ ‖m (exp(i D' χ) − exp(i φ'))‖² + ‖M ∇χ‖₁ + λ₀/2 ‖fluid (χ − its mean)‖²

Liu J 2012, doi:10.1016/j.neuroimage.2011.08.082 (M: no penalty across edges of the magnitude, 1 elsewhere); Liu T 2013,
doi:10.1002/mrm.24272 (the complex form, and MERIT: voxels that the model misses get more noise); Liu Z 2018,
doi:10.1002/mrm.26946 (the fluid).  φ' and D' are local field and dipole less their mean over a sphere, so that what is
harmonic has no say, at the cost of a sphere's radius of brain.  m is 1/σ with mean 1 over the brain.

λ is in the authors' unit, in which χ is the phase that it makes in one echo spacing: φ = 2π f₀ ΔTE χ (χ in ppm, f₀ in
MHz), 4 rad per ppm at 3 T and 5 ms.  Their λ of 1000 thus means a data weight that does not know the noise: σ_φ = 0.022
rad in the typical voxel.  With χ in ppm the same cost has λ · 2π f₀ ΔTE in the place of λ.  The dipole is the
continuous one at the grid's frequencies, as theirs.
"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from reconstruction import dipole, fourier, gradient, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.errors import NotReconstructible
from reconstruction.fourier import Window
from reconstruction.inversion._medi_terms import even_tissue, excess, find_fluid, spread
from reconstruction.noise import LEAST_PPM
from reconstruction.solvers import Convergence, conjugate_gradient
from reconstruction.sphere import eroded, mean_of_known, transfer_function
from reconstruction.stage import Count, Millimetres, Positive

MARGIN_MM = 20.0
"""Empty space between the brain and its periodic image: room for the outside sources next to the brain."""

CG_TOLERANCE, CG_ITERATIONS = 0.01, 100
"""Of the conjugate gradients in each Gauss-Newton step (the authors')."""

TOLERANCE = 0.1
"""Relative change of χ in one Gauss-Newton step at which to stop (the authors')."""

SMALLEST_SQUARE = 1e-6
"""(rad/mm)², rounds the tip of |∇χ| (the authors')."""

FLUID_R2STAR = 5.0
"""1/s; the authors' limit for fluid at 3 T."""


def medi(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    magnitude: FloatArray,
    r2star: FloatArray | None,
    geometry: Geometry,
    echo_times: tuple[float, ...],
    larmor_frequency: float,
    *,
    strength: Positive = 1000.0,
    fluid_strength: float = 100.0,
    sphere_mm: Millimetres = 5.0,
    edges: float = 0.9,
    merit: bool = True,
    max_iterations: Count = 10,
) -> tuple[FloatArray, BoolArray]:
    """χ in ppm, float32 (x, y, z), with a mean of 0 in the ventricles, and the mask it is known in, 0 outside.

    local_field, noise: ppm; noise may be inf where nothing is known.  mask: bool.  magnitude: arbitrary unit.
    r2star: 1/s, finds the ventricles; without it (a single echo) there is no such term.  echo_times: s.
    larmor_frequency: Hz.
    strength: λ, larger is rougher.  fluid_strength: λ₀.  sphere_mm: the sphere's radius; 0 goes without.
    edges: differences along an axis that count as edges of the magnitude, over the number of voxels in the mask
    (of which there are three times as many).  merit: whether to give voxels that are missed more noise.
    Raises NotReconstructible when nothing is known, or no sphere fits into the brain.
    """
    xp = array_namespace(local_field)
    voxel_size = geometry.voxel_size
    window = Window.around(mask, voxel_size, MARGIN_MM)
    inside, known = window.cut(mask), window.cut(mask & xp.isfinite(noise))
    radian_per_ppm = 2 * math.pi * larmor_frequency * 1e-6 * _spacing(echo_times)
    phase = xp.where(known, radian_per_ppm * window.cut(local_field), 0.0)
    sigma = xp.where(known, xp.clip(window.cut(noise), LEAST_PPM, None), 0.0)
    D = dipole.sampled(window.shape, voxel_size, geometry.b0_direction, local_field)
    sphere = None
    if sphere_mm > 0:
        sphere = transfer_function(window.shape, voxel_size, sphere_mm, local_field)
        inside = eroded(inside, sphere)
        phase = phase - mean_of_known(phase, known, sphere)
        D = (1 - sphere) * D
    if not xp.any(known & inside):
        raise NotReconstructible(
            f"no voxel of the mask ({int(xp.count_nonzero(mask))} voxels) is known and has a sphere of "
            f"{sphere_mm:g} mm in the brain; expected a brain: check the mask, or set a smaller sphere_mm"
        )

    def trust(sigma: FloatArray) -> FloatArray:
        """m²: σ is that of φ', the sphere's share of it included."""
        variance = sigma**2 if sphere is None else sigma**2 + mean_of_known(sigma**2, known, sphere)
        usable = inside & known
        m = xp.where(usable, 1 / xp.sqrt(xp.where(usable, variance, 1.0)), 0.0)
        return (m / xp.mean(m[inside])) ** 2

    even = even_tissue(window.cut(magnitude), inside, voxel_size, edges)
    fluid = window.cut(find_fluid(r2star, mask, geometry, FLUID_R2STAR)) & inside

    def newton(chi: FloatArray, field: FloatArray, weight: FloatArray) -> FloatArray:
        """The Gauss-Newton step from χ, whose field is `field`, with |∇χ| as a square of weight 1 / |∇χ|."""
        slope = even * gradient.forward(chi, voxel_size)
        penalty = even / xp.sqrt(slope**2 + SMALLEST_SQUARE)

        def regular(x: FloatArray) -> FloatArray:
            along = penalty * gradient.forward(x, voxel_size)
            return gradient.adjoint(along, voxel_size) + fluid_strength * spread(x, fluid)

        downhill = -regular(chi) - 2 * strength * fourier.apply(D, weight * xp.sin(field - phase))
        step, _ = conjugate_gradient(
            lambda x: regular(x) + 2 * strength * fourier.apply(D, weight * fourier.apply(D, x)),
            downhill,
            xp.zeros_like(chi),
            tolerance=CG_TOLERANCE,
            max_iterations=CG_ITERATIONS,
        )
        return step

    chi, field, weight = xp.zeros_like(phase), xp.zeros_like(phase), trust(sigma)
    change, iterations = math.inf, 0
    while change > TOLERANCE and iterations < max_iterations:
        step = newton(chi, field, weight)
        size = float(xp.linalg.vector_norm(chi))
        change = float(xp.linalg.vector_norm(step)) / size if size > 0 else math.inf
        chi = chi + step
        field = fourier.apply(D, chi)
        iterations += 1
        if merit:
            sigma = sigma * excess(field, phase, weight, inside) ** 2
            weight = trust(sigma)
    quality.convergence("inversion", Convergence(iterations, change, TOLERANCE))

    chi = chi / radian_per_ppm
    if xp.any(fluid):
        chi = chi - xp.mean(chi[fluid])
    return window.paste(xp.where(inside, chi, 0.0)), window.paste(inside)


def _spacing(echo_times: tuple[float, ...]) -> float:
    """s: between the first two echoes; from the excitation to a single one."""
    return echo_times[1] - echo_times[0] if len(echo_times) > 1 else echo_times[0]
