"""A closed triangle mesh: made from an icosahedron, evolved by BET's forces, filled to voxels.

Smith 2002, doi:10.1002/hbm.10062; the equation numbers below are the paper's.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from reconstruction.acquisition import BoolArray, FloatArray

Points = NDArray[np.float64]
Indices = NDArray[np.int64]

TANGENTIAL = 0.5
"""Half way to the neighbours' mean keeps the vertices evenly spaced (update component 1)."""

STEP = 0.05
"""The intensity force moves a vertex by at most this part of the mean vertex distance times 2 (update component 3)."""

DEEP_MM, SHALLOW_MM = 20, 10
"""How far inwards the darkest and the brightest point are looked for (d₁, d₂)."""


def icosphere(divisions: int) -> tuple[Points, Indices]:
    """Unit sphere: vertices (V, 3), triangles (T, 3), counter-clockwise seen from outside; V = 10·4ⁿ + 2."""
    golden = (1 + math.sqrt(5)) / 2
    vertices = np.array([(s * a, t * b, 0.0) for a, b in ((1.0, golden),) for s in (-1, 1) for t in (-1, 1)])
    vertices = np.concatenate([np.roll(vertices, k, axis=1) for k in range(3)])
    edge = 2.0
    near = np.abs(np.linalg.norm(vertices[:, None] - vertices[None], axis=2) - edge) < 1e-6
    triangles = np.array(
        [(i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]]
    )
    corners = vertices[triangles]
    volume = np.einsum("ti,ti->t", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    triangles[volume < 0] = triangles[volume < 0][:, ::-1]
    for _ in range(divisions):
        vertices, triangles = subdivided(vertices, triangles)
    return vertices / np.linalg.norm(vertices, axis=1, keepdims=True), triangles


def subdivided(vertices: Points, triangles: Indices) -> tuple[Points, Indices]:
    """A vertex more in the middle of every edge, behind those that were there; four triangles for each one."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    keys, place = np.unique(edges @ (len(vertices), 1), return_inverse=True)
    unique = np.stack(np.divmod(keys, len(vertices)), axis=1)
    ab, bc, ca = len(vertices) + place.reshape(3, -1)
    a, b, c = triangles.T
    quarters = [np.stack(t, axis=1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))]
    return np.concatenate([vertices, vertices[unique].mean(axis=1)]), np.concatenate(quarters)


def neighbours(triangles: Indices) -> Indices:
    """(V, 6): the vertices around each vertex in order; the twelve with five neighbours end in −1."""
    following = {(int(i), int(j)): int(k) for a, b, c in triangles for i, j, k in ((a, b, c), (b, c, a), (c, a, b))}
    start = dict(following.keys())
    around = np.full((len(start), 6), -1, np.int64)
    for i, first in start.items():
        j = first
        for n in range(6):
            around[i, n] = j
            j = following[i, j]
            if j == first:
                break
    return around


@njit(cache=True, fastmath=True)
def _between_voxels(image: FloatArray, x: float, y: float, z: float) -> float:
    """Trilinear, and beyond the volume as at its border.  The nearest voxel would let rounding of the image grow into
    another surface over a thousand steps."""
    tx, ty, tz = image.shape[0] - 1, image.shape[1] - 1, image.shape[2] - 1
    x, y, z = min(max(x, 0.0), float(tx)), min(max(y, 0.0), float(ty)), min(max(z, 0.0), float(tz))
    i, j, k = min(int(x), tx - 1), min(int(y), ty - 1), min(int(z), tz - 1)
    return _within_cell(image, i, j, k, x - i, y - j, z - k)


@njit(cache=True, fastmath=True, inline="always")
def _within_cell(image: FloatArray, i: int, j: int, k: int, fx: float, fy: float, fz: float) -> float:
    """f: parts of a voxel beyond (i, j, k)."""
    value: float = (1 - fz) * (
        (1 - fy) * ((1 - fx) * image[i, j, k] + fx * image[i + 1, j, k])
        + fy * ((1 - fx) * image[i, j + 1, k] + fx * image[i + 1, j + 1, k])
    ) + fz * (
        (1 - fy) * ((1 - fx) * image[i, j, k + 1] + fx * image[i + 1, j, k + 1])
        + fy * ((1 - fx) * image[i, j + 1, k + 1] + fx * image[i + 1, j + 1, k + 1])
    )
    return value


@njit(cache=True, fastmath=True, parallel=True)
def evolve(
    vertices: Points,
    around: Indices,
    image: FloatArray,
    voxel_size: Points,
    levels: Points,
    fraction: float,
    radii: tuple[float, float],
    iterations: int,
) -> None:
    """Moves the vertices (mm from the centre of voxel 0) outwards to the brain's edge, in place.

    image: float32 (x, y, z).  levels: t₂, t, t_m, the robust minimum, the threshold and the median of the brain.
    fraction: b_t, where between minimum and maximum the edge lies.  radii: of curvature in mm, between which the
    smoothing force goes from strong to weak.  Beyond the volume the image goes on as at its border, so that a slab
    that cuts the brain is filled to its edge.
    """
    count = vertices.shape[0]
    low, threshold, middle = levels[0], levels[1], levels[2]
    moved = np.empty_like(vertices)
    lengths = np.zeros(count)
    mean_curvature = 0.5 * (1 / radii[0] + 1 / radii[1])  # E
    steepness = 6 / (1 / radii[0] - 1 / radii[1])  # F
    sx, sy, sz = 1 / voxel_size[0], 1 / voxel_size[1], 1 / voxel_size[2]
    spacing = 1.0
    for iteration in range(iterations):
        for i in prange(count):
            px, py, pz = vertices[i, 0], vertices[i, 1], vertices[i, 2]
            mx, my, mz, nx, ny, nz, length = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            degree = 6 if around[i, 5] >= 0 else 5
            for n in range(degree):
                j, k = around[i, n], around[i, (n + 1) % degree]
                ax, ay, az = vertices[j, 0] - px, vertices[j, 1] - py, vertices[j, 2] - pz
                bx, by, bz = vertices[k, 0] - px, vertices[k, 1] - py, vertices[k, 2] - pz
                mx, my, mz = mx + ax, my + ay, mz + az
                nx, ny, nz = nx + ay * bz - az * by, ny + az * bx - ax * bz, nz + ax * by - ay * bx
                length += math.sqrt(ax * ax + ay * ay + az * az)
            lengths[i] = length / degree
            norm = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
            nx, ny, nz = nx / norm, ny / norm, nz / norm
            mx, my, mz = mx / degree, my / degree, mz / degree
            along = mx * nx + my * ny + mz * nz
            darkest, brightest = middle, threshold
            x, y, z = px * sx, py * sy, pz * sz  # in voxels, as is the step inwards
            dx, dy, dz = nx * sx, ny * sy, nz * sz
            inside = (
                min(x, x - DEEP_MM * dx) >= 0
                and min(y, y - DEEP_MM * dy) >= 0
                and min(z, z - DEEP_MM * dz) >= 0
                and max(x, x - DEEP_MM * dx) < image.shape[0] - 1
                and max(y, y - DEEP_MM * dy) < image.shape[1] - 1
                and max(z, z - DEEP_MM * dz) < image.shape[2] - 1
            )
            for depth in range(DEEP_MM + 1):
                if depth > SHALLOW_MM and darkest <= low:
                    break  # it cannot become darker than counts
                u, v, w = x - depth * dx, y - depth * dy, z - depth * dz
                if inside:
                    i0, j0, k0 = int(u), int(v), int(w)
                    value = _within_cell(image, i0, j0, k0, u - i0, v - j0, w - k0)
                else:
                    value = _between_voxels(image, u, v, w)
                darkest = min(darkest, value)
                if depth <= SHALLOW_MM:
                    brightest = max(brightest, value)
            darkest, brightest = max(low, darkest), min(middle, brightest)
            edge = low + (brightest - low) * fraction  # t_l
            pull = 2 * (darkest - edge) / (brightest - low) if brightest > low else 0.0  # f₃
            curvature = 2 * abs(along) / (spacing * spacing)  # 1/r
            stiffness = 0.5 * (1 + math.tanh(steepness * (curvature - mean_curvature)))  # f₂
            out = (stiffness - TANGENTIAL) * along + (STEP * pull * spacing if iteration else 0.0)
            moved[i, 0] = px + TANGENTIAL * mx + out * nx
            moved[i, 1] = py + TANGENTIAL * my + out * ny
            moved[i, 2] = pz + TANGENTIAL * mz + out * nz
        vertices[:] = moved
        spacing = lengths.mean()


@njit(cache=True)
def fill(vertices: Points, triangles: Indices, shape: tuple[int, int, int]) -> BoolArray:
    """Voxels whose centre a closed mesh (voxel coordinates) winds around: signed crossings along z do not cancel.

    A surface that has folded over itself winds twice, which counts as inside; parity would cut such a fold out.
    """
    winding = np.zeros(shape, np.int16)
    inside = np.zeros(shape, np.bool_)
    aside = 1e-5  # no column of voxel centres hits a vertex or an edge exactly
    for triangle in triangles:
        a, b, c = vertices[triangle[0]], vertices[triangle[1]], vertices[triangle[2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0:
            continue
        for x in range(
            max(0, math.ceil(min(a[0], b[0], c[0]) - 1)), min(shape[0], math.floor(max(a[0], b[0], c[0])) + 2)
        ):
            for y in range(
                max(0, math.ceil(min(a[1], b[1], c[1]) - 1)), min(shape[1], math.floor(max(a[1], b[1], c[1])) + 2)
            ):
                px, py = x + aside, y + 0.7 * aside
                u = ((px - a[0]) * (c[1] - a[1]) - (py - a[1]) * (c[0] - a[0])) / area
                v = ((b[0] - a[0]) * (py - a[1]) - (b[1] - a[1]) * (px - a[0])) / area
                if u < 0 or v < 0 or u + v > 1:
                    continue
                first = max(0, math.ceil(a[2] + u * (b[2] - a[2]) + v * (c[2] - a[2])))
                for z in range(first, shape[2]):
                    winding[x, y, z] += 1 if area > 0 else -1
    inside[:] = winding != 0
    return inside
