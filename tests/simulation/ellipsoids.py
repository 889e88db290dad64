"""A second head that shares nothing with the first: ellipsoids of even tissue, and their field by k-space alone.

Drawn straight on the grid that is reconstructed on, without partial volume, dephasing within the voxel or texture, and
with the continuous dipole of k-space (Salomir 2003, doi:10.1002/cmr.b.10083) on that grid: what many authors test with.
A method that lives on how `tests.simulation.head` makes its field and edges fails here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reconstruction import Acquisition, Geometry
from reconstruction.acquisition import GYROMAGNETIC_RATIO, BoolArray, FloatArray
from tests.simulation.head import SimulatedHead, slab_affine
from tests.simulation.susceptibility import dipole_field

AIR, BONE, MUSCLE = 9.4, -2.1, 0.0
Triple = tuple[float, float, float]

BRAIN: Triple = (66.0, 82.0, 62.0)
SKULL_MM, SCALP_MM, CORTEX_MM = 7.0, 7.0, 3.5
"""Half axes of the brain and the thickness of its shells."""

CAVITIES: tuple[tuple[Triple, Triple], ...] = (
    ((0, 62, -50), (14, 18, 12)),
    ((0, 14, -70), (11, 12, 9)),
    ((52, -10, -48), (9, 9, 9)),
    ((-52, -10, -48), (9, 9, 9)),
    ((0, 90, -14), (18, 8, 12)),
)
"""Frontal, sphenoid and ethmoid air and both ears: centre and half axes in mm from the brain's middle (right, front,
top), with some millimetres of bone or muscle towards the brain."""

NUCLEI: dict[str, tuple[Triple, Triple, float]] = {
    "caudate": ((13, 16, 8), (4, 9, 7), 0.06),
    "putamen": ((25, 6, 0), (5, 12, 8), 0.07),
    "globus_pallidus": ((18, 2, -2), (4, 7, 5), 0.16),
    "thalamus": ((10, -16, 6), (7, 9, 7), 0.02),
    "substantia_nigra": ((8, -16, -14), (3, 5, 3), 0.14),
    "red_nucleus": ((5, -20, -10), (3, 3, 3), 0.12),
    "dentate": ((15, -55, -28), (6, 7, 4), 0.10),
}
"""Centre on the right, half axes, χ in ppm."""

VENTRICLES: tuple[tuple[Triple, Triple], ...] = (((9, 0, 20), (4.5, 28, 8)), ((0, -12, 2), (2.5, 12, 8)))
VEINS = 24
VEIN_CHI, VEIN_RADIUS_MM = 0.3, 1.2

CHI = {"csf": 0.0, "grey": 0.02, "white": -0.03}
DENSITY = {"csf": 1.0, "grey": 0.8, "white": 0.7, "muscle": 0.6, "bone": 0.06}
R2STAR_AT_3T = {"csf": 2.0, "grey": 17.0, "white": 20.0, "muscle": 32.0, "bone": 400.0}
R2STAR_OF_CHI = 125.0
"""1/s per ppm at 3 T."""

SHIM_PPM, OFFSET_RADIAN = 0.3, (1.0, 1.5, 0.8)
"""SD of the shim's linear terms per 100 mm, and of the receive phase's constant, linear and quadratic terms."""


def simulate_ellipsoids(
    shape: tuple[int, int, int],
    voxel_size: Triple,
    echo_times: Sequence[float],
    larmor_frequency: float,
    snr: float,
    rotation: NDArray[np.float64] | None = None,
    seed: int = 1,
    air: float = AIR,
) -> SimulatedHead:
    """The arguments are those of `simulate_head`.  air: χ of the cavities in ppm, which makes the background harsh."""
    random = np.random.default_rng(seed)
    affine = slab_affine(shape, voxel_size, np.eye(3) if rotation is None else rotation, (0.0, 0.0, 0.0))
    place = _places(shape, affine)
    stretch = 1 + 0.04 * random.standard_normal(3)
    half = np.array(BRAIN) * stretch

    def inside(centre: ArrayLike, axes: ArrayLike) -> BoolArray:
        c = np.asarray(centre) * stretch
        total = sum(((p - o) / a) ** 2 for p, o, a in zip(place, c, np.asarray(axes), strict=True))
        return np.asarray(total < 1)

    brain, skull, head = (inside((0, 0, 0), half + more) for more in (0, SKULL_MM, SKULL_MM + SCALP_MM))
    face = inside((0, 30, -60), (62, 70, 60)) & ~skull
    head = head | face
    chi = np.where(head, MUSCLE, AIR)
    chi[skull] = BONE
    density, r2star = np.zeros(shape), np.full(shape, 1.0)
    scale = larmor_frequency / (3 * GYROMAGNETIC_RATIO)

    def paint(where: BoolArray, tissue: str, value: float | None = None, extra: float = 0.0) -> None:
        chi[where] = CHI.get(tissue, 0.0) if value is None else value
        density[where] = DENSITY[tissue]
        r2star[where] = scale * (R2STAR_AT_3T[tissue] + extra)

    paint(head & ~skull, "muscle", MUSCLE)
    paint(skull & ~brain, "bone", BONE)
    paint(brain, "grey")
    paint(inside((0, 0, 0), half - CORTEX_MM), "white")
    for centre, axes in VENTRICLES:
        for sign in (1, -1):
            paint(inside(np.multiply(centre, (sign, 1, 1)), axes), "csf")
    labels = {}
    for name, (centre, axes, value) in NUCLEI.items():
        value *= 1 + 0.15 * random.standard_normal()
        for side, sign in (("right", 1), ("left", -1)):
            where = inside(np.multiply(centre, (sign, 1, 1)), axes)
            paint(where, "grey", value, R2STAR_OF_CHI * value)
            labels[f"{name}_{side}"] = where
    nuclei = np.any(list(labels.values()), axis=0)
    paint(_veins(place, half, random) & brain & ~nuclei, "grey", VEIN_CHI, 40.0)
    for centre, axes in CAVITIES:
        hollow = inside(np.array(centre) + random.standard_normal(3), axes) & head & ~inside((0, 0, 0), half + 2)
        chi[hollow], density[hollow] = air, 0.0

    b0 = tuple((affine[2, :3] / voxel_size).tolist())
    field = dipole_field((chi - AIR).astype(np.float32), voxel_size, b0, padding=2.0)
    field -= _linear_fit(field, place, brain)
    field += sum(SHIM_PPM / 100 * random.standard_normal() * p for p in place).astype(np.float32)
    times = np.asarray(echo_times, float)
    turns = 2 * np.pi * larmor_frequency * 1e-6 * field
    offset = _offset(place, random)
    signal = np.stack([density * np.exp(-t * r2star) * np.exp(1j * (turns * t + offset)) for t in times])
    if np.isfinite(snr):
        sigma = np.abs(signal[0][brain]).mean() / snr
        signal += sigma * (random.standard_normal(signal.shape) + 1j * random.standard_normal(signal.shape))
    acquisition = Acquisition(
        magnitude=np.abs(signal).astype(np.float32),
        phase=np.angle(signal).astype(np.float32),
        echo_times=tuple(float(t) for t in times),
        larmor_frequency=larmor_frequency,
        geometry=Geometry(shape, voxel_size, b0, tuple(tuple(row) for row in affine.tolist())),
    )
    return SimulatedHead(
        acquisition, chi.astype(np.float32), brain, skull, head, labels, field, r2star.astype(np.float32), affine, seed
    )


def _places(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """mm to the right, the front and the top, (3, x, y, z)."""
    return np.tensordot(affine[:3, :3], np.indices(shape), 1) + affine[:3, 3, None, None, None]


def _veins(place: NDArray[np.float64], half: NDArray[np.float64], random: np.random.Generator) -> BoolArray:
    """Straight tubes through the brain."""
    found = np.zeros(place.shape[1:], bool)
    for _ in range(VEINS):
        start = half * random.uniform(-0.7, 0.7, 3)
        direction = random.standard_normal(3)
        direction /= np.linalg.norm(direction)
        offset = place - start[:, None, None, None]
        along = np.tensordot(direction, offset, 1)
        across = np.sqrt(np.maximum((offset**2).sum(axis=0) - along**2, 0))
        found |= (across < VEIN_RADIUS_MM) & (np.abs(along) < random.uniform(8, 25))
    return found


def _linear_fit(field: FloatArray, place: NDArray[np.float64], brain: BoolArray) -> FloatArray:
    """What a linear shim takes off."""
    A = np.stack([np.ones(int(brain.sum())), *place[:, brain]], axis=1)
    c = np.linalg.lstsq(A, field[brain].astype(float), rcond=None)[0]
    return np.asarray(c[0] + np.tensordot(c[1:], place, 1), np.float32)


def _offset(place: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    x, y, z = place / 100
    constant, linear, quadratic = OFFSET_RADIAN
    return np.asarray(
        constant * random.standard_normal()
        + linear * sum(random.standard_normal() * u for u in (x, y, z))
        + quadratic * sum(random.standard_normal() * u for u in (x * x, y * y, z * z, x * y))
    )
