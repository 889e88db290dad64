"""The unit dipole: how susceptibility makes field (Marques 2005, doi:10.1002/cmr.b.20034; Salomir 2003, 10.1002/cmr.b.10083).

The kernel is the continuous one, sampled in k-space, and not the transform of the sampled Green's function: sources
that fill voxels are band-limited as the image is, so this one is exact for them and needs no voxel-scale correction.
Its price, periodic images of every source, is paid by the padding of `fourier.Window`.
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import FloatArray
from reconstruction.fourier import Shape, frequencies


def kernel(
    shape: Shape, voxel_size: tuple[float, float, float], b0_direction: tuple[float, float, float]
) -> FloatArray:
    """The half spectrum D(k) = 1/3 − (k·b)²/k² on a grid of `shape`; field [ppm] = F⁻¹ D F χ [ppm].

    D(0) is 0: the field of a χ that is the same everywhere cannot be seen, so χ has no zero of its own.
    """
    kx, ky, kz = frequencies(shape, voxel_size)
    bx, by, bz = (np.float32(b / np.linalg.norm(b0_direction)) for b in b0_direction)
    k_squared = kx**2 + ky**2 + kz**2
    k_squared[0, 0, 0] = np.inf
    D: FloatArray = np.float32(1 / 3) - (kx * bx + ky * by + kz * bz) ** 2 / k_squared
    D[0, 0, 0] = 0
    return D
