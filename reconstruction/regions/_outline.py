"""The atlas' regions on the brain's own grid, through the map from brain to template."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from reconstruction import quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.atlas import Atlas, Mixture
from reconstruction.pieces import Box, box_of
from reconstruction.regions._images import Grid
from reconstruction.regions._mixtures import density_ratio
from reconstruction.regions._sampling import resliced, sampled

COMPLETE = 0.9
"""Share of a region inside the brain mask above which its figures stand for all of it."""

HALF = 0.5
"""Of a drawn label, interpolated: its outline."""

Depths = dict[str, tuple[Box, FloatArray]]


def depths(atlas: Atlas, places: FloatArray, grid: Grid, mask: BoolArray, geometry: Geometry) -> Depths:
    """How deep each voxel lies in each region, in a box: log(density/threshold) of mixtures, positive inside.

    places: (3, x, y, z) mm in the template, of a grid's voxels.  Labels count as ±1 on either side of the outline:
    they hold no depth.
    """
    to_grid = np.linalg.inv(grid.affine) @ np.array(geometry.affine)

    def in_box(volumes: FloatArray, box: Box) -> FloatArray:
        start = to_grid[:3, :3] @ [part.start for part in box] + to_grid[:3, 3]
        return resliced(volumes, to_grid[:3, :3], start, tuple(part.stop - part.start for part in box))

    found: Depths = {}
    for name, mixture in atlas.mixtures.items():
        box = _box(_near(mixture, places), to_grid, geometry)
        if box is not None:
            found[name] = box, np.log(density_ratio(mixture, in_box(places, box))).astype(np.float32)
    if atlas.labels is not None:
        inverse = np.linalg.inv(np.array(atlas.affine)).astype(np.float32)
        at = np.tensordot(inverse[:3, :3], places, 1) + inverse[:3, 3].reshape(3, 1, 1, 1)
        shown = box_of(mask)
        for number, name in sorted(atlas.label_names.items()):
            share = sampled((atlas.labels == number).astype(np.float32)[None], at)
            box = _box(share[0] > 0, to_grid, geometry, shown)
            if box is not None:
                found[name] = box, np.where(in_box(share, box)[0] > HALF, np.float32(1), np.float32(-1))
    return found


def _near(mixture: Mixture, places: FloatArray) -> BoolArray:
    """The voxels that lie within a mixture's reach of its means."""
    reach = 3 * np.sqrt(np.einsum("kii->ki", mixture.covariances)).max()
    near = np.ones(places.shape[1:], bool)
    for axis, low, high in zip(places, mixture.means.min(0) - reach, mixture.means.max(0) + reach, strict=True):
        near &= (axis > low) & (axis < high)
    return near


def _box(near: BoolArray, to_grid: NDArray[np.float64], geometry: Geometry, within: Box | None = None) -> Box | None:
    """The geometry's voxels among a grid's voxels that are marked, one of these further on each side; None where there
    are none.  within: a box that they share."""
    if not near.any():
        return None
    ends = [(part.start - 1, part.stop) for part in box_of(near)]
    corners = np.linalg.inv(to_grid) @ np.array([*itertools.product(*ends, (1,))]).T
    low, high = np.floor(corners[:3].min(1)).astype(int), np.ceil(corners[:3].max(1)).astype(int) + 1
    limits = within or tuple(slice(0, n) for n in geometry.shape)
    x, y, z = (
        slice(max(part.start, int(a)), min(part.stop, int(b))) for part, a, b in zip(limits, low, high, strict=True)
    )
    return (x, y, z) if all(part.stop > part.start for part in (x, y, z)) else None


def whole(names: tuple[str, ...], found: Depths, mask: BoolArray) -> tuple[str, ...]:
    """Those regions that lie within the mask but for a rim, and do not run out of the volume.  Warns of the others."""
    kept: list[str] = []
    cut: list[str] = []
    for name in names:
        box, depth = found.get(name, (None, None))
        if box is None or depth is None or not (inside := depth > 0).any():
            cut.append(name)
            continue
        complete = (inside & mask[box]).sum() >= COMPLETE * inside.sum()
        (kept if complete and not _touches_edge(box, inside, mask.shape) else cut).append(name)
    if cut and kept:
        quality.warn(f"regions: not wholly inside the brain that was acquired, and left out: {', '.join(cut)}")
    return tuple(kept)


def _touches_edge(box: Box, inside: BoolArray, shape: tuple[int, ...]) -> bool:
    """Whether a region has voxels in the outermost plane of the volume, beyond which it may go on."""
    for axis, (part, size) in enumerate(zip(box, shape, strict=True)):
        planes = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) + (part.start or 0)
        if planes[0] == 0 or planes[-1] == size - 1:
            return True
    return False


def drawn(names: tuple[str, ...], found: Depths, mask: BoolArray) -> NDArray[np.uint8]:
    """Labels: each voxel of the mask is of the region that it lies deepest in; mixtures go before drawn labels."""
    labels = np.zeros(mask.shape, np.uint8)
    deepest = np.zeros(mask.shape, np.float32)
    for number, name in enumerate(names, start=1):
        if name not in found:
            continue
        box, depth = found[name]
        here = mask[box] & (depth > deepest[box]) & (depth > 0)
        labels[box][here] = number
        deepest[box][here] = depth[here]
    return labels
