"""The only place that calls an FFT: real, on sizes that transform fast, in the precision that it is given.

Arrays of another library than NumPy go through that library's transforms, on its device.
Threads have one setting, numba's (`numba.set_num_threads`, NUMBA_NUM_THREADS): loops and transforms share the cores.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeVar

import array_api_compat
import numba
import numpy as np
import scipy.fft
from array_api_compat import array_namespace
from numpy.typing import NDArray

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.arrays import Array, like, to_numpy
from reconstruction.errors import NotReconstructible

Spectrum = NDArray[np.complex64]
Shape = tuple[int, int, int]
Real = TypeVar("Real", np.float32, np.float64)


def fast_shape(shape: Shape, margin: Shape = (0, 0, 0)) -> Shape:
    """The next sizes with small prime factors that hold `shape` and `margin` voxels more."""
    x, y, z = (scipy.fft.next_fast_len(n + m, real=True) for n, m in zip(shape, margin, strict=True))
    return x, y, z


AXES = (0, 1, 2)

MOST_VOXELS = 2**31
"""Of a window: 8 GB for each volume, of which a method holds ten and more.  Images of a head have 2²⁹ at the most."""


def forward(volume: FloatArray, shape: Shape) -> Spectrum:
    """The half spectrum of a real volume, zero-padded to `shape`."""
    if not array_api_compat.is_numpy_array(volume):
        transformed: Spectrum = array_namespace(volume).fft.rfftn(volume, s=shape, axes=AXES)
        return transformed
    spectrum: Spectrum = scipy.fft.rfftn(volume, s=shape, workers=numba.get_num_threads())
    return spectrum


def inverse(spectrum: Spectrum, shape: Shape) -> FloatArray:
    """The real volume of a half spectrum, `shape` voxels.  The spectrum is used up."""
    if not array_api_compat.is_numpy_array(spectrum):
        transformed: FloatArray = array_namespace(spectrum).fft.irfftn(spectrum, s=shape, axes=AXES)
        return transformed
    # irfftn makes a copy of the spectrum; its two parts need none, and take three quarters of the time.
    threads = numba.get_num_threads()
    planes = scipy.fft.ifftn(spectrum, axes=AXES[:2], workers=threads, overwrite_x=True)
    volume: FloatArray = scipy.fft.irfft(planes, n=shape[2], axis=2, workers=threads)
    return volume


def apply(transfer: FloatArray, volume: NDArray[Real]) -> NDArray[Real]:
    """The circular convolution of `volume` with the filter whose half spectrum `transfer` is."""
    spectrum = forward(volume, _shape(volume))  # type: ignore[arg-type]  # float64 too, in its own precision
    spectrum *= transfer
    return inverse(spectrum, _shape(volume))  # type: ignore[return-value]  # as above


def frequencies(
    shape: Shape, voxel_size: tuple[float, float, float], of: Array | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The axes (kx, ky, kz) of a half spectrum in 1/mm, shaped to broadcast against each other.

    of: an array whose library and device they shall have; NumPy's without.
    """
    kx = scipy.fft.fftfreq(shape[0], voxel_size[0]).astype(np.float32)[:, None, None]
    ky = scipy.fft.fftfreq(shape[1], voxel_size[1]).astype(np.float32)[None, :, None]
    kz = scipy.fft.rfftfreq(shape[2], voxel_size[2]).astype(np.float32)[None, None, :]
    return (kx, ky, kz) if of is None else (like(kx, of), like(ky, of), like(kz, of))


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

        Raises NotReconstructible when the mask is empty, or the window larger than any memory.
        """
        inside = to_numpy(mask)
        if not inside.any():
            raise NotReconstructible("the mask is empty; expected a brain: check magnitude, or supply a mask")
        corners = []
        for axis in range(3):
            occupied = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
            corners.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
        x, y, z = corners
        size = (x.stop - x.start, y.stop - y.start, z.stop - z.start)
        mx, my, mz = (int(np.ceil(margin_mm / s)) for s in voxel_size)
        needed = math.prod(n + m for n, m in zip(size, (mx, my, mz), strict=True))
        if needed > MOST_VOXELS:
            raise NotReconstructible(
                f"the brain's box of {size} voxels of {voxel_size} mm with a margin of {margin_mm:g} mm has "
                f"{needed:.2g} voxels; expected at most {MOST_VOXELS:.2g}: check the voxel size, and lower the "
                "method's radius"
            )
        return cls(_shape(mask), (x, y, z), fast_shape(size, (mx, my, mz)))

    def cut(self, volume: NDArray) -> NDArray:
        """The box of `volume`, zero in what was added."""
        part = volume[self.box]
        out = zeros_like(volume, self.shape)
        out[: part.shape[0], : part.shape[1], : part.shape[2]] = part
        return out

    def cut_round(self, volume: NDArray, beyond: float) -> NDArray:
        """The whole window of `volume`, `beyond` where the image has ended.

        Of what was added to the box, one half lies behind it and the other before it.
        """
        xp = array_namespace(volume)
        out = xp.full_like(zeros_like(volume, self.shape), beyond)
        halves = []
        for box, n, image in zip(self.box, self.shape, self.image, strict=True):
            size = box.stop - box.start
            behind = min(size + (n - size) // 2, image - box.start)
            before = min(n - size - (n - size) // 2, box.start)
            halves.append(
                (
                    (slice(0, behind), slice(box.start, box.start + behind)),
                    (slice(n - before, n), slice(box.start - before, box.start)),
                )
            )
        for x, y, z in itertools.product(*halves):
            out[x[0], y[0], z[0]] = volume[x[1], y[1], z[1]]
        return out

    def refined(self, factors: Shape, image: Shape) -> Window:
        """The same window on a grid of which `factors` voxels make one of this; `image`: that grid's size."""
        x, y, z = (
            slice(box.start * f, min(box.stop * f, n)) for box, f, n in zip(self.box, factors, image, strict=True)
        )
        sx, sy, sz = (n * f for n, f in zip(self.shape, factors, strict=True))
        return Window(image, (x, y, z), (sx, sy, sz))

    def paste(self, volume: NDArray) -> NDArray:
        """The image with `volume`'s box in its place and zero around it."""
        x, y, z = self.box
        out = zeros_like(volume, self.image)
        out[self.box] = volume[: x.stop - x.start, : y.stop - y.start, : z.stop - z.start]
        return out


def zeros_like(volume: Array, shape: tuple[int, ...]) -> Array:
    """Zeros of another shape, with the type, library and device of `volume`."""
    xp = array_namespace(volume)
    return xp.zeros(shape, dtype=volume.dtype, device=array_api_compat.device(volume))


def _shape(volume: NDArray) -> Shape:
    x, y, z = volume.shape
    return x, y, z
