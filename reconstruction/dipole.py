"""The unit dipole: how susceptibility makes field.

Marques & Bowtell 2005, doi:10.1002/cmr.b.20034; Salomir 2003, doi:10.1002/cmr.b.10083; by differences on the grid:
Milovic 2018, doi:10.1002/mrm.27073.

The kernel is that of the differential equation ∇²B = (∇²/3 − (b·∇)²) χ with differences in the place of derivatives.
Against the continuous kernel sampled in k-space it has no fold at the Nyquist frequency, where an oblique (k·b)² would
jump from one end of the axis to the other: on simulated oblique heads that fold drew a grid over the whole map.
Against the transform of the sampled Green's function it needs no correction within the voxel.  Of differences of second
and fourth order the second gave the same contrast on axial and oblique slabs.  Periodic images are kept away by the
padding of `fourier.Window`.
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
    b = np.array(b0_direction, np.float32) / np.float32(np.linalg.norm(b0_direction))
    first, second = [], []
    for k, h in zip(frequencies(shape, voxel_size), voxel_size, strict=True):
        angle = np.float32(np.pi * h) * k
        first.append(np.sin(2 * angle) / np.float32(h))
        second.append((2 * np.sin(angle) / np.float32(h)) ** 2)
    k_squared = second[0] + second[1] + second[2]
    k_squared[0, 0, 0] = np.inf
    along_b_squared = np.zeros_like(k_squared)
    for i in range(3):
        along_b_squared += b[i] ** 2 * second[i]
        for j in range(i):
            along_b_squared += 2 * b[i] * b[j] * (first[i] * first[j])
    along_b_squared /= k_squared
    D: FloatArray = np.subtract(np.float32(1 / 3), along_b_squared)
    D[0, 0, 0] = 0
    return D
