"""The atlas' regions on the brain's own grid, through the map from brain to template."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction import quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.atlas import Atlas, Mixture
from reconstruction.regions._images import Grid
from reconstruction.regions._mixtures import density_ratio

COMPLETE = 0.9
"""Share of a region inside the brain mask above which its figures stand for all of it."""

HALF = 0.5
"""Of a drawn label, interpolated: its outline."""

Box = tuple[slice, slice, slice]


def places_of(map_: FloatArray, grid: Grid, geometry: Geometry) -> FloatArray:
    """mm in the template, (3, x, y, z), for every voxel.  map_: the same for a grid's voxels."""
    to_grid = np.linalg.inv(grid.affine) @ np.array(geometry.affine)
    return np.stack(
        [
            ndimage.affine_transform(
                axis, to_grid[:3, :3], to_grid[:3, 3], output_shape=geometry.shape, order=1, mode="nearest"
            )
            for axis in map_
        ]
    )


def depths(atlas: Atlas, places: FloatArray) -> dict[str, tuple[Box, FloatArray]]:
    """How deep each voxel lies in each region: log(density/threshold) of mixtures, positive inside, in a box.

    Labels count as ±1 on either side of the outline: they hold no depth.
    """
    found: dict[str, tuple[Box, FloatArray]] = {}
    for name, mixture in atlas.mixtures.items():
        box = _box(mixture, places)
        if box is not None:
            found[name] = box, np.log(density_ratio(mixture, places[:, *box])).astype(np.float32)
    if atlas.labels is not None:
        inverse = np.linalg.inv(np.array(atlas.affine))
        at = np.tensordot(inverse[:3, :3], places, 1) + inverse[:3, 3].reshape(3, 1, 1, 1)
        everywhere = (slice(None),) * 3
        for number, name in sorted(atlas.label_names.items()):
            drawn = (atlas.labels == number).astype(np.float32)
            inside = ndimage.map_coordinates(drawn, at, order=1, output=np.float32) > HALF
            found[name] = everywhere, np.where(inside, np.float32(1), np.float32(-1))
    return found


def _box(mixture: Mixture, places: FloatArray) -> Box | None:
    """The voxels that lie within a mixture's reach of its means; None where there are none."""
    reach = 3 * np.sqrt(np.einsum("kii->ki", mixture.covariances)).max()
    low, high = mixture.means.min(0) - reach, mixture.means.max(0) + reach
    near = np.all((places > low.reshape(3, 1, 1, 1)) & (places < high.reshape(3, 1, 1, 1)), axis=0)
    if not near.any():
        return None
    x, y, z = ndimage.find_objects(near.astype(np.uint8))[0]
    return x, y, z


def whole(names: tuple[str, ...], found: dict[str, tuple[Box, FloatArray]], mask: BoolArray) -> tuple[str, ...]:
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


def drawn(names: tuple[str, ...], found: dict[str, tuple[Box, FloatArray]], mask: BoolArray) -> NDArray[np.uint8]:
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
