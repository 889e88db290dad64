"""Bends what an affine map left: greedy diffeomorphic registration, all contrasts at once.

Yushkevich et al. 2016, "Fast automatic segmentation of hippocampal subfields and medial temporal lobe subregions in
3 Tesla and 7 Tesla T2-weighted MRI", doi:10.1016/j.jalz.2016.06.1205.  docs/adr says why this library.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numba
import numpy as np
from picsl_greedy import Greedy3D
from SimpleITK import GetArrayFromImage, GetImageFromArray, Image

from reconstruction.acquisition import BoolArray, FloatArray

RADIUS_VOXELS = 2
"""Of the patch in which contrasts are correlated."""

STEP_VOXELS = 0.5

SEED = 1
"""Of the noise of a thousandth that keeps flat patches from a division by 0; a seed of 0 would be another each time."""

UPDATE_VOXELS, WARP_VOXELS = 2.0, 0.7
"""SD of the Gaussians over each step and over the whole warp."""


def bend(
    fixed: Mapping[str, FloatArray],
    moving: Mapping[str, FloatArray],
    weights: Mapping[str, float],
    where: BoolArray,
    iterations: tuple[int, ...],
) -> FloatArray:
    """Displacements (3, x, y, z) in voxels: where in `moving` each voxel of `fixed` is found.

    fixed, moving: images by name on one grid.  weights: by the same names.  where: voxels of `fixed` that count.
    iterations: from coarse to fine, each level of half the voxel size; 0 leaves a level out.
    The threads are numba's, the one setting of this package; their number changes rounding only.
    """
    arrays = {f"{side}_{n}": v for side, by in (("f", fixed), ("m", moving)) for n, v in by.items()}
    pairs = " ".join(f"-w {weights[name]:g} -i f_{name} m_{name}" for name in fixed)
    radius, times = "x".join([str(RADIUS_VOXELS)] * 3), "x".join(map(str, iterations))
    command = (
        f"{pairs} -gm where -m NCC {radius} -n {times} -e {STEP_VOXELS} "
        f"-s {UPDATE_VOXELS}vox {WARP_VOXELS}vox -wp 0 -o warp -seed {SEED} -threads {numba.get_num_threads()} -V 0"
    )
    images = {name: _image(array) for name, array in (arrays | {"where": where}).items()}
    greedy, said = Greedy3D(), io.StringIO()
    greedy.execute(command, out=said, err=said, warp=None, **images)
    return np.ascontiguousarray(GetArrayFromImage(greedy["warp"]).transpose(3, 2, 1, 0), np.float32)


def _image(array: FloatArray | BoolArray) -> Image:
    """Of 1 mm voxels: lengths are voxels."""
    return GetImageFromArray(np.ascontiguousarray(array.T, np.float32))
