"""The arrays that background removal and inversion work on: NumPy's on the CPU, another library's on a device.

Methods of those stages are written against the namespace of the arrays that they are given (the array API standard,
https://data-apis.org/array-api/latest; `array_api_compat.array_namespace`), so that the same code runs on both.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from reconstruction.errors import DeviceUnavailable

Array = Any
"""An array of any library that follows the standard."""

DEVICES = ("cpu", "cuda")


def like(array: NDArray, other: Array) -> Array:
    """A NumPy array as one of `other`'s library on `other`'s device; itself where that is NumPy."""
    if array_api_compat.is_numpy_array(other):
        return array
    return array_api_compat.array_namespace(other).asarray(array, device=array_api_compat.device(other))


def to_numpy(array: Array) -> NDArray:
    """Any array as NumPy's; itself if it is one."""
    if array_api_compat.is_numpy_array(array):
        return array
    if array_api_compat.is_cupy_array(array):
        return array.get()  # CuPy refuses every implicit copy to the host
    if array_api_compat.is_torch_array(array):
        return array.cpu().numpy()
    return np.asarray(array)


def mover(device: str) -> Callable[[NDArray], Array]:
    """What moves a NumPy array to a device: "cpu", or "cuda" by CuPy or else by PyTorch.

    Raises DeviceUnavailable when neither is installed or neither finds a device.
    """
    if device == "cpu":
        return lambda array: array
    found = []
    for library, devices, move in (("cupy", _cupy_devices, _to_cupy), ("torch", _torch_devices, _to_torch)):
        try:
            count = devices()
        except Exception as error:  # noqa: BLE001  # CuPy's own errors can be named only where CuPy is installed
            found.append(f"{library}: {type(error).__name__}: {error}")
            continue
        if count:
            return move
        found.append(f"{library}: no device")
    raise DeviceUnavailable(
        f"device {device!r} cannot be used ({'; '.join(found)}); expected CuPy or PyTorch with a CUDA device: install "
        'the extra "gpu", or set device = "cpu"'
    )


def _cupy_devices() -> int:
    return int(import_module("cupy").cuda.runtime.getDeviceCount())


def _to_cupy(array: NDArray) -> Array:
    return import_module("cupy").asarray(array)


def _torch_devices() -> int:
    return int(import_module("torch").cuda.device_count())


def _to_torch(array: NDArray) -> Array:
    return import_module("torch").asarray(array, device="cuda")
