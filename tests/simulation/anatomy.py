"""A head on a canonical 1 mm grid: the ICBM152 brain, and skull, scalp, face, neck and air cavities built round it.

Places are mm in MNI space (R, A, S).  The template has the brain alone; everything round it follows from the distance
to the intracranial cavity (skull and scalp are shells of it) or is an ellipsoid placed by hand where adults have it.
The template is stopped at z = −72 mm; below, its last slice goes on as the spinal cord.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray
from tests.simulation import atlas
from tests.simulation.sampling import enlarge

ORIGIN_MM = np.array([-100.0, -135.0, -155.0])
"""The centre of voxel (0, 0, 0) of the canonical grid; its voxels are 1 mm cubes."""
SHAPE = (202, 250, 262)

CSF_LAYER_MM = 2.0
SKULL_MM = 6.0
SCALP_MM = 6.0
"""Thickness of the shells: adult means of about 2, 6–7 and 5–7 mm."""
MARROW_MM = (2.2, 4.2)
MARROW_FRACTION = 0.3
"""Where between the tables of the skull its spongy bone lies, and how much of that is fatty marrow."""

Ellipsoid = tuple[tuple[float, float, float], tuple[float, float, float]]

FACE = ((0, 25, -70), (64, 75, 72))
NOSE = ((0, 94, -58), (13, 18, 18))
NECK = ((0, -30), (56, 60))
"""Ellipsoids (centre, half axes) and the neck's elliptic cylinder, mm."""

EYES = (((-32, 62, -36), (12, 12, 12)), ((32, 62, -36), (12, 12, 12)))
ORBITS = (((-31, 52, -36), (17, 22, 17)), ((31, 52, -36), (17, 22, 17)))
FRONTAL_SINUS = (((-13, 79, -6), (12, 9, 14)), ((10, 79, -8), (9, 8, 11)))
SPHENOID_SINUS = (((-7, 17, -41), (9, 13, 10)), ((8, 15, -40), (8, 11, 9)))
ETHMOID_CELLS = (((0, 47, -36), (11, 18, 10)),)
MAXILLARY_SINUSES = (((-29, 52, -68), (12, 15, 15)), ((29, 52, -68), (12, 15, 15)))
NASAL_CAVITY = (((0, 60, -62), (8, 34, 15)),)
PHARYNX = (((0, 12, -95), (9, 9, 36)), ((0, 18, -140), (8, 8, 40)))
MIDDLE_EARS = (((-47, -22, -42), (6, 6, 7)), ((47, -22, -42), (6, 6, 7)))
EAR_CANALS = (((-70, -20, -43), (25, 3.5, 3.5)), ((70, -20, -43), (25, 3.5, 3.5)))
MASTOID_CELLS = (((-58, -36, -50), (8, 11, 14)), ((58, -36, -50), (8, 11, 14)))
CAVITIES = (
    FRONTAL_SINUS
    + SPHENOID_SINUS
    + ETHMOID_CELLS
    + MAXILLARY_SINUSES
    + NASAL_CAVITY
    + PHARYNX
    + MIDDLE_EARS
    + EAR_CANALS
)
BONE_OVER_CAVITY_MM = 2.0
"""What stays between a cavity and the intracranial space."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Fractions (0…1) and distances (mm, negative inside) on the canonical grid, all float32 of SHAPE.

    head, skull, marrow, intracranial, air, fat, eyes, grey, white: fraction of the voxel.  depth: distance to the
    intracranial boundary.  brain: bool, brain tissue with its ventricles and sulci.  nuclei: by name, a box of the grid
    and the fraction in it.
    """

    head: FloatArray
    fat: FloatArray
    skull: FloatArray
    marrow: FloatArray
    intracranial: FloatArray
    depth: FloatArray
    grey: FloatArray
    white: FloatArray
    eyes: FloatArray
    air: FloatArray
    brain: BoolArray
    nuclei: dict[str, tuple[tuple[slice, ...], FloatArray]]


def axes_mm(step: float = 1.0) -> tuple[NDArray[np.float64], ...]:
    """Places of the canonical grid's voxel centres along R, A, S; `step` mm apart."""
    return tuple(o + step * np.arange(-(-n // step)) for o, n in zip(ORIGIN_MM, SHAPE, strict=True))


@lru_cache(maxsize=1)
def anatomy(sharpening: float = 1.0) -> Anatomy:
    """The canonical head.  Kept in memory, since every simulated head starts from it.

    sharpening: power of the tissue probabilities; 1 leaves the template's soft edges, 2.5 makes them a millimetre wide,
    empties the ventricles of tissue and fills the sulci with fluid.
    """
    grey, white = _sharpened(*(_template(name) for name in ("gm", "wm")), sharpening)
    tissue = np.minimum(grey + white, 1)
    coarse = np.ascontiguousarray(tissue[::2, ::2, ::2])
    intracranial_mm = _hull(coarse > 0.3, closing=10, margin=CSF_LAYER_MM)
    brain_mm = _hull(coarse > 0.5, closing=5, margin=0)
    depth = enlarge(intracranial_mm, 2.0, SHAPE)
    head_mm = enlarge(_head(intracranial_mm), 2.0, SHAPE)
    head = _inside(head_mm)
    intracranial = _inside(depth)
    skull = _inside(depth - SKULL_MM) * (1 - intracranial) * head
    under_skin = (head_mm > -6.5) & (head_mm < -2)
    fat = under_skin.astype(np.float32) * (1 - _inside(depth - SKULL_MM))
    marrow = MARROW_FRACTION * skull * _inside(depth - MARROW_MM[1]) * _inside(MARROW_MM[0] - depth)
    for orbit in ORBITS:
        _draw(fat, orbit)
    eyes, air, mastoid = (np.zeros(SHAPE, np.float32) for _ in range(3))
    for eye in EYES:
        _draw(eyes, eye)
    for ellipsoid in CAVITIES:
        _draw(air, ellipsoid)
    for ellipsoid in MASTOID_CELLS:
        _draw(mastoid, ellipsoid)
    air = np.maximum(air, mastoid * _trabeculae())
    air *= _inside(BONE_OVER_CAVITY_MM - depth)
    air = np.maximum(air, 1 - head)
    axes = axes_mm()
    regions = {name: atlas.membership(components, axes) for name, components in atlas.nuclei().items()}
    brain = (enlarge(brain_mm, 2.0, SHAPE) < 0) & (depth < -1)  # a millimetre of fluid under the bone
    return Anatomy(head, fat, skull, marrow, intracranial, depth, grey, white, eyes, air, brain, regions)


def _template(name: str) -> FloatArray:
    """A tissue probability of the ICBM152 template that nilearn carries, on the canonical grid."""
    package = importlib.util.find_spec("nilearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("nilearn is absent; its wheel carries the template: install the dev dependencies")
    folder = Path(package.origin).parent / "datasets" / "data"
    image = nibabel.load(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
    values = np.asarray(image.dataobj, np.float32) / 255
    start = np.round(image.affine[:3, 3] - ORIGIN_MM).astype(int)
    source, target = [], []
    for first, n, size in zip(start, values.shape, SHAPE, strict=True):
        source.append(slice(max(0, -first), min(n, size - first)))
        target.append(slice(max(0, first), min(size, first + n)))
    out = np.zeros(SHAPE, np.float32)
    out[tuple(target)] = values[tuple(source)]
    out[:, :, : start[2] + 1] = out[:, :, start[2] + 1, None]
    return out


def _sharpened(grey: FloatArray, white: FloatArray, power: float) -> tuple[FloatArray, FloatArray]:
    """Grey and white matter as in one person: the template's probabilities are blurred by the spread between people."""
    parts = [np.maximum(p, 0) ** np.float32(power) for p in (grey, white, 1 - grey - white)]
    whole = np.maximum(sum(parts), np.float32(1e-6))
    return parts[0] / whole, parts[1] / whole


def _hull(mask: BoolArray, closing: float, margin: float) -> FloatArray:
    """Signed distance (mm) to the mask after a closing by `closing` mm, filled and grown by `margin`; 2 mm voxels."""
    near = ndimage.distance_transform_edt(~mask, 2) < closing
    near = ndimage.binary_fill_holes(near)
    inner = ndimage.distance_transform_edt(near, 2)
    return _smooth_distance(inner > closing) - np.float32(margin)


def _smooth_distance(mask: BoolArray) -> FloatArray:
    """Signed distance (mm, negative inside) on 2 mm voxels, its corners rounded."""
    distance = ndimage.distance_transform_edt(~mask, 2) - ndimage.distance_transform_edt(mask, 2)
    return ndimage.gaussian_filter(distance, 1.0, mode="nearest").astype(np.float32)


def _head(intracranial_mm: FloatArray) -> FloatArray:
    """Signed distance to the skin, 2 mm voxels."""
    x, y, z = np.meshgrid(*axes_mm(2.0), indexing="ij", sparse=True)
    scalp = intracranial_mm < SKULL_MM + SCALP_MM
    (cx, cy), (rx, ry) = NECK
    neck = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1) & (z < -40)
    return _smooth_distance(scalp | neck | (_radius(FACE, x, y, z) < 1) | (_radius(NOSE, x, y, z) < 1))


def _radius(
    ellipsoid: Ellipsoid, x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
) -> NDArray[np.float64]:
    """1 on the ellipsoid, less inside."""
    (cx, cy, cz), (rx, ry, rz) = ellipsoid
    return np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)


def _draw(volume: FloatArray, ellipsoid: Ellipsoid) -> None:
    """Adds an ellipsoid to a volume of fractions."""
    axes = axes_mm()
    box = tuple(
        slice(*np.searchsorted(axis, (c - r - 1, c + r + 1))) for axis, c, r in zip(axes, *ellipsoid, strict=True)
    )
    x, y, z = np.meshgrid(*(axis[part] for axis, part in zip(axes, box, strict=True)), indexing="ij", sparse=True)
    fraction = _inside((_radius(ellipsoid, x, y, z) - 1) * min(ellipsoid[1]))
    np.maximum(volume[box], fraction, out=volume[box])


def _inside(distance: NDArray[Any]) -> FloatArray:
    """The fraction of a voxel inside a surface `distance` mm from its centre."""
    return np.clip(0.5 - distance, 0, 1).astype(np.float32)


def _trabeculae() -> FloatArray:
    """Bony walls between air cells some 4 mm wide: the cavities of the mastoid."""
    noise = np.random.default_rng(0).standard_normal(tuple(n // 2 for n in SHAPE)).astype(np.float32)
    cells = ndimage.gaussian_filter(noise, 0.8)
    return (enlarge(cells / cells.std(), 2.0, SHAPE) > -0.4).astype(np.float32)
