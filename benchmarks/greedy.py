"""greedy (P. Yushkevich, Apache-2.0) in the place of our own bending, for `python -m benchmarks.regions --against`.

Same grid, contrasts, weights, likeness (correlation in patches of five voxels) and smoothing; only the library differs.
It needs `pip install 'qsm-node[greedy]'`, which nothing else here does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.regions._correlation import RADIUS
from reconstruction.regions._deform import LONGEST_STEP, STEP_SD, WARP_SD, Level


def bend(
    fixed: Mapping[str, FloatArray],
    moving: Mapping[str, FloatArray],
    weights: Mapping[str, float],
    where: BoolArray,
    levels: tuple[Level, ...],
    start: FloatArray | None = None,
) -> FloatArray:
    """As `reconstruction.regions._deform.bend`; greedy goes on from no warp, so that where there is a start the coarse
    levels before it are done again."""
    from picsl_greedy import Greedy3D

    steps = {level.every: level.steps for level in levels}
    if start is not None and start.any():
        steps = {4: 20, 2: 15} | steps
    images = {"where": _image(where)}
    pairs = []
    for name in fixed:
        if weights[name] > 0:
            images |= {f"fixed_{name}": _image(fixed[name]), f"moving_{name}": _image(moving[name])}
            pairs.append(f"-w {weights[name]:.4f} -i fixed_{name} moving_{name}")
    found = Greedy3D()
    found.execute(
        f"{' '.join(pairs)} -gm where -m NCC {'x'.join([str(RADIUS)] * 3)} -n {steps.get(4, 0)}x{steps.get(2, 0)}x"
        f"{steps.get(1, 0)} -s {STEP_SD}vox {WARP_SD}vox -e {LONGEST_STEP} -V 0 -threads {numba.get_num_threads()} "
        "-o warp",
        **images,
        warp=None,
    )
    import SimpleITK

    return np.ascontiguousarray(SimpleITK.GetArrayFromImage(found["warp"]).transpose(3, 2, 1, 0), np.float32)


def _image(volume: Any) -> Any:
    """Voxels of 1 along the axes, so that a displacement is one in voxels."""
    import SimpleITK

    return SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.transpose(2, 1, 0), np.float32))
