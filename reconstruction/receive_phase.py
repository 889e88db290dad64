"""The receivers' phase in the field of a single echo, which no second one tells from it.

In a conducting body the phase of radio frequency is curved, ∇²φ = μ₀ σ ω (phase-based electric properties tomography:
Katscher 2013, doi:10.1155/2013/546562), and so over a head about evenly.  The field of sources outside has no such
curvature, so that background removal leaves it, and an inversion answers with a shade from the middle to the rim.  What
background removal leaves of an even curvature is known, and so is how much of it there is: the field of a brain's own
sources has next to none.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from reconstruction import quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.noise import weights
from reconstruction.pieces import box_of

Removal = Callable[..., tuple[FloatArray, BoolArray]]
"""Background removal: from `field` in ppm (x, y, z) to the local field, 0 outside the mask that comes with it."""


def without_curvature(
    field: FloatArray, noise: FloatArray, mask: BoolArray, geometry: Geometry, removed: Removal, turn: float
) -> tuple[FloatArray, BoolArray]:
    """The local field of a single echo without the even curvature of the receivers' phase, and the mask it holds in.

    field, noise: ppm, float32 (x, y, z); noise may be inf where nothing is known.  mask: bool (x, y, z).  removed: see
    Removal.  turn: radian that 1 ppm makes until the echo.  What is found goes into the figure `offset.curvature`, ∇²φ
    in rad/m²: 480 for 0.5 S/m at 3 T.  Raises NotReconstructible when nothing is known.
    """
    left, _ = removed(field=_bowl(mask, geometry))
    local_field, mask = removed(field=field)
    weight, _ = weights(noise, mask)
    share = float(np.vdot(weight * left, left))
    amount = float(np.vdot(weight * left, local_field)) / share if share > 0 else 0.0
    quality.figure("offset.curvature", amount * turn)
    return local_field - np.float32(amount) * left, mask


def _bowl(mask: BoolArray, geometry: Geometry) -> FloatArray:
    """A field of Laplacian 1 /m² in the mask and 0 outside, float32: r²/6 from its middle."""
    axes = (
        1e-3 * size * (np.arange(n) - (part.start + part.stop - 1) / 2)
        for n, size, part in zip(mask.shape, geometry.voxel_size, box_of(mask), strict=True)
    )
    squares = sum(np.ix_(*((along**2 / 6).astype(np.float32) for along in axes)))
    return np.where(mask, squares, np.float32(0))


def turn_of_ppm(larmor_frequency: float, echo_time: float) -> float:
    """Radian that 1 ppm makes until an echo, of Hz and s."""
    return 2 * math.pi * larmor_frequency * 1e-6 * echo_time
