"""One-step inversion by total generalised variation, from the Laplacian of the field: no background need be removed.

    min over χ, ψ, w:  ½ Σ W ψ² + α₁ |∇χ − w| + α₀ |E w|   where  ∇²ψ + (∇²/3 − (b·∇)²) χ = ∇²f  in the brain

Langkammer 2015, doi:10.1016/j.neuroimage.2015.02.041.  What is harmonic in the brain drops out of ∇²f, and the
background with it; ψ is the noise.  After `background.none` f is the total field.  Voxels whose neighbours are not all
in the mask have no Laplacian: there the map ends.  Solved by the primal-dual iteration of Chambolle & Pock 2011,
doi:10.1007/s10851-010-0251-1, as in the paper; a step for each variable by its row or column of the system (Pock &
Chambolle 2011, doi:10.1109/ICCV.2011.6126441), over-relaxation (Condat 2013, doi:10.1007/s10957-012-0245-9) and a start
that already follows the wave equation bring it to its end in some hundreds of iterations.
"""

from __future__ import annotations

from itertools import product
from math import pi

from array_api_compat import array_namespace

from reconstruction import dipole, fourier, gradient, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.fourier import Shape, Window, zeros_like
from reconstruction.noise import weights
from reconstruction.solvers import Convergence
from reconstruction.sphere import mean_of_known, transfer_function
from reconstruction.stage import Count, Positive

Offset = tuple[int, int, int]
Stencil = dict[Offset, float]

Links = list[BoolArray]

BALANCE = 100.0
"""Primal over dual steps: χ is tens of noise standard deviations high, its multipliers at most α.  Steers the speed."""

RELAXATION = 1.9
"""How far beyond its new value each variable goes; below 2."""

CHECKED = 20
"""Iterations between two looks at how far χ has moved."""

FLOOR, LONGEST_MM = 0.1, 60.0
"""Of the start: the least |D|, and the wavelength beyond which the wave equation is not believed."""

PAIRS = ((0, 1), (0, 2), (1, 2))


def tgv(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    strength: Positive = 0.05,
    smoothness: Positive = 3.0,
    tolerance: float = 1e-2,
    max_iterations: Count = 2000,
) -> tuple[FloatArray, BoolArray]:
    """χ in ppm, float32 (x, y, z), and the mask it is known in, 0 outside.

    local_field: ppm, or the total field.  noise: ppm, inf where nothing is known.  mask: bool.
    strength: α₁ in median noise standard deviations, for differences per voxel edge: the paper's 0.001 for a noise of
    0.02 radian.  smoothness: α₀/α₁ in voxel edges; larger comes nearer to total variation.
    tolerance: relative change of χ in twenty iterations at which to stop.
    max_iterations: far more than a field without background needs to reach the tolerance; a total field, whose strong
    edges lie where the map ends, takes several times as many as that.
    """
    xp = array_namespace(local_field)
    reach = 3 * max(geometry.voxel_size)
    window = Window.around(mask, geometry.voxel_size, reach)
    image_weight, sigma = weights(noise, mask)
    inside, W = window.cut(mask), window.cut(image_weight)
    sphere = transfer_function(window.shape, geometry.voxel_size, reach, local_field)
    field = window.cut(xp.where(mask, local_field, 0.0) / sigma)
    field = xp.where(W > 0, field, mean_of_known(field, W > 0, sphere))

    edge = geometry.voxel_volume ** (1 / 3)
    h = tuple(size / edge for size in geometry.voxel_size)
    laplace, wave = _laplacian(h), _wave(h, geometry.b0_direction)
    valid = inside
    for offset in laplace | wave:
        valid = valid & _shifted(inside, offset)
    right_side = xp.where(valid, _apply(laplace, field), 0.0)
    links = [inside & xp.roll(inside, -1, axis=axis) for axis in range(3)]

    chi, psi = xp.where(inside, _first_guess(right_side, window.shape, geometry), 0.0), xp.zeros_like(field)
    w, p = zeros_like(field, (3, *window.shape)), zeros_like(field, (3, *window.shape))
    q, eta = zeros_like(field, (6, *window.shape)), xp.zeros_like(field)
    rows_of_eta = _size(laplace) + _size(wave)
    row_of_p, row_of_q = 1 + 2 / min(h), 8**0.5 / min(h)
    of_chi = BALANCE / (_size(wave) + sum(2 / s for s in h))
    of_psi, of_w = BALANCE / _size(laplace), BALANCE / (1 + (2 + 8**0.5) / min(h))

    before, change, iterations = chi, float("inf"), 0
    while change > tolerance and iterations < max_iterations:
        tilde_chi = chi - of_chi * xp.where(inside, _apply(wave, eta) + _gradient_adjoint(p, links, h), 0.0)
        tilde_psi = (psi - of_psi * xp.where(inside, _apply(laplace, eta), 0.0)) / (1 + of_psi * W)
        tilde_w = w - of_w * (_strain_adjoint(q, links, h) - p)
        ahead = [2 * new - old for new, old in ((tilde_chi, chi), (tilde_psi, psi), (tilde_w, w))]
        constraint = _apply(laplace, ahead[1]) + _apply(wave, ahead[0]) - right_side
        tilde_eta = eta + xp.where(valid, constraint, 0.0) / (BALANCE * rows_of_eta)
        tilde_p = _within(p + (_gradient(ahead[0], links, h) - ahead[2]) / (BALANCE * row_of_p), strength)
        tilde_q = _within(q + _strain(ahead[2], links, h) / (BALANCE * row_of_q), smoothness * strength)
        chi, psi, w, eta, p, q = (
            old + RELAXATION * (new - old)
            for old, new in (
                (chi, tilde_chi), (psi, tilde_psi), (w, tilde_w), (eta, tilde_eta), (p, tilde_p), (q, tilde_q)
            )
        )  # fmt: skip
        iterations += 1
        if iterations % CHECKED == 0:
            size = float(xp.linalg.vector_norm(chi))
            change = float(xp.linalg.vector_norm(chi - before)) / size if size > 0 else 0.0
            before = chi
    quality.convergence("inversion", Convergence(iterations, change, tolerance))
    return window.paste(sigma * xp.where(valid, chi, 0.0)), window.paste(valid)


def _first_guess(right_side: FloatArray, shape: Shape, geometry: Geometry) -> FloatArray:
    """χ from its wave equation alone, in k-space: what the iteration would be slowest to find."""
    xp = array_namespace(right_side)
    of_laplacian = gradient.spectrum(shape, geometry.voxel_size, of=right_side)
    D = dipole.kernel(shape, geometry.voxel_size, geometry.b0_direction, of=right_side)
    wave = -of_laplacian * D
    floor = FLOOR * of_laplacian + (2 * pi / LONGEST_MM) ** 2
    per_edge_squared = geometry.voxel_volume ** (2 / 3)
    inverse: FloatArray = xp.divide(wave, per_edge_squared * (wave**2 + floor**2))
    return fourier.apply(inverse, right_side)


def _laplacian(h: tuple[float, ...]) -> Stencil:
    """∇² by second differences; h: voxel size."""
    return _second_differences([1 / s**2 for s in h])


def _wave(h: tuple[float, ...], b: tuple[float, float, float]) -> Stencil:
    """∇²/3 − (b·∇)² by the differences of `dipole.kernel`, which is its spectrum over the Laplacian's."""
    stencil = _second_differences([(1 / 3 - c**2) / s**2 for c, s in zip(b, h, strict=True)])
    for i, j in PAIRS:
        mixed = b[i] * b[j] / (2 * h[i] * h[j])
        for one, other in product((1, -1), repeat=2) if mixed else ():
            first, second = _step(i, one), _step(j, other)
            stencil[first[0] + second[0], first[1] + second[1], first[2] + second[2]] = -one * other * mixed
    return stencil


def _second_differences(weight: list[float]) -> Stencil:
    stencil: Stencil = {(0, 0, 0): -2 * sum(weight)}
    for axis, value in enumerate(weight):
        stencil[_step(axis, 1)] = stencil[_step(axis, -1)] = value
    return stencil


def _step(axis: int, step: int) -> Offset:
    return step * (axis == 0), step * (axis == 1), step * (axis == 2)


def _size(stencil: Stencil) -> float:
    return sum(abs(value) for value in stencil.values())


def _shifted(volume: FloatArray, offset: Offset) -> FloatArray:
    return array_namespace(volume).roll(volume, offset, axis=(0, 1, 2))


def _apply(stencil: Stencil, volume: FloatArray) -> FloatArray:
    """The sum over a stencil that is even, and so its own adjoint."""
    total = stencil[0, 0, 0] * volume
    for offset, value in stencil.items():
        if offset != (0, 0, 0) and value != 0:
            total += value * _shifted(volume, offset)
    return total


def _gradient(chi: FloatArray, links: Links, h: tuple[float, ...]) -> FloatArray:
    """Forward differences within the brain; (3, x, y, z)."""
    xp = array_namespace(chi)
    return xp.stack([xp.where(links[a], xp.roll(chi, -1, axis=a) - chi, 0.0) / h[a] for a in range(3)])


def _gradient_adjoint(p: FloatArray, links: Links, h: tuple[float, ...]) -> FloatArray:
    xp = array_namespace(p)
    total = xp.zeros_like(p[0, ...])
    for a in range(3):
        along = xp.where(links[a], p[a, ...], 0.0) / h[a]
        total += xp.roll(along, 1, axis=a) - along
    return total


def _back(x: FloatArray, a: int, links: Links, h: tuple[float, ...]) -> FloatArray:
    """Backward difference within the brain."""
    xp = array_namespace(x)
    return xp.where(xp.roll(links[a], 1, axis=a), x - xp.roll(x, 1, axis=a), 0.0) / h[a]


def _back_adjoint(x: FloatArray, a: int, links: Links, h: tuple[float, ...]) -> FloatArray:
    xp = array_namespace(x)
    along = xp.where(xp.roll(links[a], 1, axis=a), x, 0.0) / h[a]
    return along - xp.roll(along, -1, axis=a)


def _strain(w: FloatArray, links: Links, h: tuple[float, ...]) -> FloatArray:
    """E w = (∇w + ∇wᵀ)/2 as (xx, yy, zz, √2 xy, √2 xz, √2 yz), so that its length is that of the matrix."""
    xp = array_namespace(w)
    rows = [_back(w[a, ...], a, links, h) for a in range(3)]
    rows += [(_back(w[i, ...], j, links, h) + _back(w[j, ...], i, links, h)) * 0.5**0.5 for i, j in PAIRS]
    return xp.stack(rows)


def _strain_adjoint(q: FloatArray, links: Links, h: tuple[float, ...]) -> FloatArray:
    xp = array_namespace(q)
    rows = [_back_adjoint(q[a, ...], a, links, h) for a in range(3)]
    for n, (i, j) in enumerate(PAIRS):
        rows[i] = rows[i] + _back_adjoint(q[3 + n, ...], j, links, h) * 0.5**0.5
        rows[j] = rows[j] + _back_adjoint(q[3 + n, ...], i, links, h) * 0.5**0.5
    return xp.stack(rows)


def _within(vectors: FloatArray, radius: float) -> FloatArray:
    """The nearest vectors no longer than `radius`; (n, x, y, z)."""
    xp = array_namespace(vectors)
    length = xp.sqrt(xp.sum(vectors**2, axis=0))
    return vectors / xp.clip(length / radius, 1.0, None)
