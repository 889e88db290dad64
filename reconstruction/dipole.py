"""The unit dipole: how susceptibility makes field.

Marques & Bowtell 2005, doi:10.1002/cmr.b.20034; Salomir 2003, doi:10.1002/cmr.b.10083; by differences on the grid:
Milovic 2018, doi:10.1016/j.mri.2018.04.004.

`sampled` is the continuous kernel at the grid's frequencies.  A scanner measures in k-space, so an image holds no
others and this is its kernel; published methods and most published simulations use it.  An oblique (k·b)² jumps where
the frequencies end, so a source with edges that the grid cannot hold draws a faint grid round itself.

`kernel` is that of the differential equation ∇²B = (∇²/3 − (b·∇)²) χ with differences in the place of derivatives.  It
has no such jump, but is steeper at fine detail: nuclei of few voxels come out too high, and a background that was made
with the other kernel leaves more error at the brain's rim.  Periodic images are kept away by the padding of
`fourier.Window`.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from reconstruction.acquisition import FloatArray
from reconstruction.arrays import Array
from reconstruction.fourier import Shape, frequencies


def kernel(
    shape: Shape,
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    of: Array | None = None,
) -> FloatArray:
    """The half spectrum D(k) = 1/3 − (k·b)²/k² on a grid of `shape`; field [ppm] = F⁻¹ D F χ [ppm].

    D(0) is 0: the field of a χ that is the same everywhere cannot be seen, so χ has no zero of its own.
    of: an array whose library and device the kernel shall have; NumPy's without.
    """
    axes = frequencies(shape, voxel_size, of)
    xp = array_namespace(*axes)
    angles = [np.pi * h * k for k, h in zip(axes, voxel_size, strict=True)]
    first = [xp.sin(2 * angle) / h for angle, h in zip(angles, voxel_size, strict=True)]
    second = [(2 * xp.sin(angle) / h) ** 2 for angle, h in zip(angles, voxel_size, strict=True)]
    return _kernel(first, second, b0_direction)


def sampled(
    shape: Shape,
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    of: Array | None = None,
) -> FloatArray:
    """The continuous kernel at the grid's frequencies, as published methods use it.  Arguments as for `kernel`.

    A Nyquist frequency stands for both its signs, so that it has no part in products with another axis.
    """
    axes = frequencies(shape, voxel_size, of)
    xp = array_namespace(*axes)
    first = [
        xp.where(xp.abs(k) * h < 0.5 - 1e-6, k, 0.0)  # in units of the sampling rate, where Nyquist's is 0.5
        for k, h in zip(axes, voxel_size, strict=True)
    ]
    return _kernel(first, [k**2 for k in axes], b0_direction)


def _kernel(first: list[FloatArray], second: list[FloatArray], b0_direction: tuple[float, float, float]) -> FloatArray:
    """1/3 − (k·b)²/k² from each axis' k (in products with another's) and k²; 0 at k = 0."""
    b = [float(np.float32(component / np.linalg.norm(b0_direction))) for component in b0_direction]
    k_squared = second[0] + second[1] + second[2]
    k_squared[0, 0, 0] = 1
    along_b_squared = array_namespace(k_squared).zeros_like(k_squared)
    for i in range(3):
        along_b_squared += b[i] ** 2 * second[i]
        for j in range(i):
            along_b_squared += 2 * b[i] * b[j] * (first[i] * first[j])
    along_b_squared /= k_squared
    D: FloatArray = 1 / 3 - along_b_squared
    D[0, 0, 0] = 0
    return D
