"""The only place that calls an FFT: real, on sizes that transform fast, in the precision that it is given.

Threads have one setting, numba's (`numba.set_num_threads`, NUMBA_NUM_THREADS): loops and transforms share the cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.errors import NotReconstructible

Spectrum = NDArray[np.complex64]
Shape = tuple[int, int, int]
Real = TypeVar("Real", np.float32, np.float64)


def fast_shape(shape: Shape, margin: Shape = (0, 0, 0)) -> Shape:
    """The next sizes with small prime factors that hold `shape` and `margin` voxels more."""
    x, y, z = (scipy.fft.next_fast_len(n + m, real=True) for n, m in zip(shape, margin, strict=True))
    return x, y, z


def forward(volume: FloatArray, shape: Shape) -> Spectrum:
    """The half spectrum of a real volume, zero-padded to `shape`."""
    spectrum: Spectrum = scipy.fft.rfftn(volume, s=shape, workers=numba.get_num_threads())
    return spectrum


def inverse(spectrum: Spectrum, shape: Shape) -> FloatArray:
    """The real volume of a half spectrum, `shape` voxels.  The spectrum is used up."""
    volume: FloatArray = scipy.fft.irfftn(spectrum, s=shape, workers=numba.get_num_threads(), overwrite_x=True)
    return volume


def apply(transfer: FloatArray, volume: NDArray[Real]) -> NDArray[Real]:
    """The circular convolution of `volume` with the filter whose half spectrum `transfer` is."""
    workers = numba.get_num_threads()
    spectrum = scipy.fft.rfftn(volume, workers=workers)
    spectrum *= transfer
    convolved: NDArray[Real] = scipy.fft.irfftn(spectrum, s=volume.shape, workers=workers, overwrite_x=True)
    return convolved


def frequencies(shape: Shape, voxel_size: tuple[float, float, float]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The axes (kx, ky, kz) of a half spectrum in 1/mm, shaped to broadcast against each other."""
    kx = scipy.fft.fftfreq(shape[0], voxel_size[0]).astype(np.float32)
    ky = scipy.fft.fftfreq(shape[1], voxel_size[1]).astype(np.float32)
    kz = scipy.fft.rfftfreq(shape[2], voxel_size[2]).astype(np.float32)
    return kx[:, None, None], ky[None, :, None], kz[None, None, :]


@dataclass(frozen=True)
class Window:
    """The box around a mask, enlarged to a size that transforms fast.

    The box sits in the low corner; what was added lies behind it and, the transform being periodic, also before it.
    Working here instead of on the whole image saves most of the air around the head.
    """

    image: Shape
    box: tuple[slice, slice, slice]
    shape: Shape

    @classmethod
    def around(cls, mask: BoolArray, voxel_size: tuple[float, float, float], margin_mm: float) -> Window:
        """The window that keeps `margin_mm` of empty space between the mask and its periodic image.

        Raises NotReconstructible when the mask is empty.
        """
        if not mask.any():
            raise NotReconstructible("the mask is empty; expected a brain: check magnitude, or supply a mask")
        corners = []
        for axis in range(3):
            occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            corners.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
        x, y, z = corners
        size = (x.stop - x.start, y.stop - y.start, z.stop - z.start)
        mx, my, mz = (int(np.ceil(margin_mm / s)) for s in voxel_size)
        return cls(_shape(mask), (x, y, z), fast_shape(size, (mx, my, mz)))

    def cut(self, volume: NDArray) -> NDArray:
        """The box of `volume`, zero in what was added."""
        part = volume[self.box]
        out = np.zeros(self.shape, dtype=volume.dtype)
        out[: part.shape[0], : part.shape[1], : part.shape[2]] = part
        return out

    def paste(self, volume: NDArray) -> NDArray:
        """The image with `volume`'s box in its place and zero around it."""
        out = np.zeros(self.image, dtype=volume.dtype)
        target = out[self.box]
        target[...] = volume[: target.shape[0], : target.shape[1], : target.shape[2]]
        return out


def _shape(volume: NDArray) -> Shape:
    x, y, z = volume.shape
    return x, y, z
