"""A simulated human head in the scanner: what a multi-echo gradient echo of it looks like, and the truth beside it.

    anatomy (1 mm, canonical) → tissue properties → warp by seed → field on a fine grid → signal on sub-voxel points

Nothing is computed on the grid that is reconstructed on: the field comes from a finer grid that lies along the patient
while the slab may be rotated, and every voxel is the mean of the complex signal at several points in it, so that
partial volume and dephasing near the air cavities arise by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction import Acquisition, Geometry
from reconstruction.acquisition import BoolArray, FloatArray
from tests.simulation import sampling, tissue
from tests.simulation.anatomy import ORIGIN_MM, SHAPE, Anatomy, anatomy
from tests.simulation.susceptibility import HARMONIC, dipole_field, shim
from tests.simulation.vessels import veins

ISOCENTRE_MM = (0.0, -18.0, 6.0)
"""The default middle of the slab in MNI mm: the middle of the brain."""

WARP_SPACING_MM = 8.0
WARP_SMOOTHNESS_MM = 24.0
WARP_SD_MM = 2.0
SCALE_SD = 0.02
"""How heads differ: smooth displacements of some millimetres and a few per cent in length, width and height."""

CHI_TEXTURE_PPM = 0.004
SIGNAL_TEXTURE = 0.03
TEXTURE_MM = 3.0
"""Variation within tissue: SD of χ, relative SD of signal, size of the grains."""
IRON_SPREAD, SIDE_SPREAD = 0.12, 0.04
"""Relative SD of a nucleus' iron between people and between its sides."""

SHIM_RESIDUAL_PPM = 0.15
"""SD of each second-order coefficient that the scanner's shim leaves (per 100 mm): about 20 Hz at 3 T."""

RECEIVE_PHASE = np.array([2, 1.5, 1.5, 1.5, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])
RECEIVE_SHADING = (0.25, 0.2, 0.15)
"""SD (radian) of the offset's constant, linear and second-order terms per 100 mm; the logarithm by which surface coils
brighten the rim at 100 mm from the middle to the right, the front and the top."""

BLEED_MM, CALCIFICATION_MM = ((24.0, 18.0, 28.0), 4.0), ((-28.0, -40.0, 26.0), 3.0)
"""Centre and radius of the lesions, in white matter."""


@dataclass(frozen=True, eq=False)
class SimulatedHead:
    """A simulated acquisition and its truth, all volumes (x, y, z) on the acquisition's grid.

    chi: ppm, mean over the voxel, water = 0 (air +9.4).  brain_mask: brain with ventricles and sulcal CSF.
    inside_skull: the intracranial space; a brain mask has no business outside it.  head_mask: all but outer air.
    labels: "putamen_left", …: bool.  field: ppm, after shim, mean over the voxel.  r2star: 1/s.
    affine: voxel (x, y, z) → patient R, A, S in mm.  seed: what it was made with.
    """

    acquisition: Acquisition
    chi: FloatArray
    brain_mask: BoolArray
    inside_skull: BoolArray
    head_mask: BoolArray
    labels: dict[str, BoolArray]
    field: FloatArray
    r2star: FloatArray
    affine: NDArray[np.float64]
    seed: int

    def local_field(self) -> FloatArray:
        """ppm: the field of the brain's own susceptibility, what background removal should leave (0 outside)."""
        geometry = self.acquisition.geometry
        own = np.where(self.brain_mask, self.chi, 0).astype(np.float32)
        return np.where(self.brain_mask, dipole_field(own, geometry.voxel_size, geometry.b0_direction, 2.0), 0)


def simulate_head(
    shape: tuple[int, int, int] = (96, 120, 64),
    voxel_size: tuple[float, float, float] = (2.0, 2.0, 2.0),
    echo_times: Sequence[float] = (4e-3, 10e-3, 16e-3, 22e-3, 28e-3),
    larmor_frequency: float = 123.2e6,
    snr: float = 60.0,
    rotation: NDArray[np.float64] | None = None,
    seed: int = 1,
    centre_mm: tuple[float, float, float] = ISOCENTRE_MM,
    lesions: bool = False,
    sharpening: float = 1.0,
    warp: FloatArray | None = None,
) -> SimulatedHead:
    """Simulates a 3D multi-echo gradient echo of a head that `seed` makes.

    shape, voxel_size (mm): the grid, of any size; the head may stick out of it.  echo_times: s.  larmor_frequency: Hz.
    snr: mean magnitude of the brain at the first echo over the noise SD of one channel (inf for none).
    rotation: 3×3, turns the slab from axial in R, A, S; the head stays in line with B₀.  centre_mm: the slab's middle.
    lesions: adds a microbleed of 1.2 ppm and a calcification of −1.5 ppm.  sharpening: see `anatomy`.
    warp: displacements added to those that the seed makes, see `tests.simulation.warps`.
    """
    random = np.random.default_rng(seed)
    head = anatomy(sharpening)
    field_strength = larmor_frequency / 42.577e6
    control = _warp(random)
    if warp is not None:
        control += warp
    chi, amplitude, r2star, shift = _properties(head, random, field_strength, echo_times[-1], lesions)
    step = _field_step(min(voxel_size))
    field = _field(chi, shift, control, step)
    coefficients = _shim(field, head, control, step, random)
    field = ndimage.spline_filter(field, order=3, output=np.float32)
    affine = slab_affine(shape, voxel_size, np.eye(3) if rotation is None else rotation, centre_mm)
    from_corner = affine.copy()
    from_corner[:3, 3] -= ORIGIN_MM
    times = np.array(echo_times, float)
    sub = tuple(int(np.clip(np.ceil(v / 0.75), 2, 4)) for v in voxel_size)
    signal, chi_mean, field_mean, r2star_mean = sampling.acquire(
        chi, amplitude, r2star, control, WARP_SPACING_MM, field, step, coefficients, from_corner, shape, sub, times,
        larmor_frequency,
    )  # fmt: skip
    del field, amplitude, r2star, chi
    names = ("", *head.nuclei)
    masks = sampling.nearest(_masks(head), control, WARP_SPACING_MM, from_corner, shape)
    numbers = sampling.nearest(_numbers(head), control, WARP_SPACING_MM, from_corner, shape)
    brain = masks & 1 != 0
    signal *= _receive(shape, affine, random)
    if np.isfinite(snr) and brain.any():
        sigma = np.abs(signal[0][brain]).mean() / snr
        for echo in signal:
            echo.real += sigma * random.standard_normal(shape, np.float32)
            echo.imag += sigma * random.standard_normal(shape, np.float32)
    axes = affine[:3, :3] / voxel_size
    acquisition = Acquisition(
        magnitude=np.abs(signal),
        phase=np.angle(signal),
        echo_times=tuple(float(t) for t in echo_times),
        larmor_frequency=larmor_frequency,
        geometry=Geometry(shape, voxel_size, tuple(axes[2].tolist()), tuple(tuple(row) for row in affine.tolist())),
    )
    return SimulatedHead(
        acquisition=acquisition,
        chi=chi_mean,
        brain_mask=brain,
        inside_skull=masks & 2 != 0,
        head_mask=masks & 4 != 0,
        labels={name: numbers == i for i, name in enumerate(names) if i},
        field=field_mean,
        r2star=r2star_mean,
        affine=affine,
        seed=seed,
    )


def slab_affine(
    shape: tuple[int, int, int],
    voxel_size: tuple[float, float, float],
    rotation: NDArray[np.float64],
    centre_mm: tuple[float, float, float],
) -> NDArray[np.float64]:
    """Voxel → R, A, S mm as DICOM orders an axial slab: columns to the left, rows to the back, slices upwards."""
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(voxel_size)
    affine[:3, 3] = np.array(centre_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _field_step(voxel: float) -> float:
    """mm: three quarters to a half of the smallest voxel side, never below the 0.6 mm that memory and anatomy allow."""
    return max(0.6, min(0.75 * voxel, 1.0), 0.5 * voxel)


def about_x(degrees: float) -> NDArray[np.float64]:
    """A slab tilted about the left-right axis, as axial slabs are tilted to the line of the commissures."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _warp(random: np.random.Generator) -> FloatArray:
    """Displacements (3, i, j, k) in mm on the control grid, from the subject to the canonical head."""
    shape = tuple(int(n // WARP_SPACING_MM) + 3 for n in SHAPE)
    noise = random.standard_normal((3, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, *[WARP_SMOOTHNESS_MM / WARP_SPACING_MM] * 3), mode="nearest")
    smooth *= WARP_SD_MM / smooth.std()
    places = np.stack(np.meshgrid(*(np.arange(n) * WARP_SPACING_MM for n in shape), indexing="ij"))
    scale = SCALE_SD * random.standard_normal(3)
    centre = np.array(ISOCENTRE_MM) - ORIGIN_MM
    return (smooth + scale[:, None, None, None] * (places - centre[:, None, None, None])).astype(np.float32)


def _texture(random: np.random.Generator) -> FloatArray:
    """Unit-variance noise with grains of TEXTURE_MM on the canonical grid."""
    noise = random.standard_normal(tuple(int(n / TEXTURE_MM) + 2 for n in SHAPE), np.float32)
    grains = ndimage.gaussian_filter(noise, 0.6)
    return sampling.enlarge(grains / grains.std(), TEXTURE_MM, SHAPE)


def _properties(
    head: Anatomy, random: np.random.Generator, field_strength: float, last_echo: float, lesions: bool
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """χ (ppm), signal at TE = 0, R2* (1/s) and chemical shift (ppm), canonical: tissue painted over tissue."""
    volumes = [np.zeros(SHAPE, np.float32) for _ in range(4)]
    volumes[0] += tissue.AIR_PPM

    def paint(material: tissue.Tissue, fraction: FloatArray, box: tuple[slice, ...] = (slice(None),) * 3) -> None:
        values = (
            material.chi,
            tissue.steady_state(material, last_echo + tissue.READOUT_TAIL, field_strength),
            tissue.r2star(material, field_strength),
            material.shift,
        )
        for volume, value in zip(volumes, values, strict=True):
            volume[box] += fraction * (np.float32(value) - volume[box])

    paint(tissue.MUSCLE, head.head)
    paint(tissue.FAT, head.fat)
    paint(tissue.CSF, head.eyes)
    paint(tissue.BONE, head.skull)
    paint(tissue.FAT, head.marrow)
    paint(tissue.CSF, head.intracranial)
    paint(tissue.GREY, head.grey * head.intracranial / np.maximum(1 - head.white, 1e-3).clip(head.grey))
    paint(tissue.WHITE, head.white * head.intracranial)
    iron = {name: 1 + IRON_SPREAD * random.standard_normal() for name in tissue.NUCLEI_CHI}
    for name, (box, fraction) in head.nuclei.items():
        structure = name.rpartition("_")[0]
        chi = tissue.NUCLEI_CHI[structure] * (iron[structure] + SIDE_SPREAD * random.standard_normal())
        paint(tissue.nucleus(chi), fraction, box)
    paint(tissue.VEIN, veins(head, random))
    if lesions:
        for material, (centre, radius) in ((tissue.BLEED, BLEED_MM), (tissue.CALCIFICATION, CALCIFICATION_MM)):
            paint(material, *_ball(centre, radius))
    brain = head.intracranial * np.minimum(head.grey + head.white, 1)
    volumes[0] += CHI_TEXTURE_PPM * brain * _texture(random)
    volumes[1] *= 1 + SIGNAL_TEXTURE * _texture(random)
    paint(tissue.AIR, head.air)
    return volumes[0], volumes[1], volumes[2], volumes[3]


def _ball(centre: tuple[float, float, float], radius: float) -> tuple[FloatArray, tuple[slice, ...]]:
    at = np.array(centre) - ORIGIN_MM
    box = tuple(slice(int(c - radius - 2), int(c + radius + 3)) for c in at)
    grid = np.stack(np.meshgrid(*(np.arange(b.start, b.stop) for b in box), indexing="ij"), -1)
    return np.clip(0.5 + radius - np.linalg.norm(grid - at, axis=-1), 0, 1).astype(np.float32), box


def _field(chi: FloatArray, shift: FloatArray, control: FloatArray, step: float) -> FloatArray:
    """ppm on the subject's grid of `step` mm: the dipole field of the head in air, and fat's chemical shift."""
    fine = tuple(int(n / step) for n in SHAPE)
    sources = sampling.warped(chi, control, WARP_SPACING_MM, step, fine, tissue.AIR_PPM)
    sources -= np.float32(tissue.AIR_PPM)
    field = dipole_field(sources, (step, step, step))
    del sources
    field += sampling.warped(shift, control, WARP_SPACING_MM, step, fine, 0.0)
    return field


def _shim(
    field: FloatArray, head: Anatomy, control: FloatArray, step: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """The scanner's second-order shim over the brain, and the error it makes (ppm, see `second_order`)."""
    every = 6
    affine = np.diag([every * step] * 3 + [1.0])
    thinned = np.ascontiguousarray(field[::every, ::every, ::every])
    brain = sampling.nearest(_masks(head), control, WARP_SPACING_MM, affine, thinned.shape) & 1 != 0
    coefficients = shim(thinned, brain, every * step)
    error: NDArray[np.float64] = HARMONIC @ (SHIM_RESIDUAL_PPM * random.standard_normal(HARMONIC.shape[1]))
    return coefficients + error


def _masks(head: Anatomy) -> NDArray[np.uint8]:
    """Bits: 1 brain, 2 intracranial, 4 head."""
    intracranial = head.intracranial > 0.5
    bits = (head.brain & intracranial).view(np.uint8)
    return bits | intracranial.view(np.uint8) << 1 | (head.head > 0.5).view(np.uint8) << 2


def _numbers(head: Anatomy) -> NDArray[np.uint8]:
    """Nuclei numbered from 1."""
    out = np.zeros(SHAPE, np.uint8)
    for number, (box, fraction) in enumerate(head.nuclei.values(), start=1):
        out[box][fraction > 0.5] = number
    return out


def _receive(
    shape: tuple[int, int, int], affine: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.complex64]:
    """What coil and radio frequency do to every echo alike: a phase of several radian and a shading."""
    ijk = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    offset = affine[:3, 3] - ISOCENTRE_MM
    u, v, w = (
        sum((np.float32(a / 100) * n for a, n in zip(row, ijk, strict=True)), start=np.float32(o / 100))
        for row, o in zip(affine[:3, :3], offset, strict=True)
    )
    terms = (np.float32(1), u, v, w, u * u, v * v, w * w, u * v, u * w, v * w)
    phase = random.standard_normal(10) * RECEIVE_PHASE
    shading = np.array([0, *random.normal(0, 0.1, 3), *RECEIVE_SHADING, 0, 0, 0])
    out = np.zeros(shape, np.complex64)
    for term, p, s in zip(terms, phase, shading, strict=True):
        out += np.complex64(s + 1j * p) * term
    return np.exp(out)
