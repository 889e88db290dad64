"""A small picture of the map, for lists of many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from scipy import ndimage

from dicom_node.encode.quantity import QSM

SIDE = 176
"""Pixels: twice what the page of the node shows it at, for fine screens."""


def thumbnail(image: Dataset) -> Image.Image:
    """A slice of the QSM series in its window, black around the head."""
    chi = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    low, high = QSM.window
    grey = np.clip((chi - low) / (high - low) * 255, 0, 255)
    grey[_around(chi == 0)] = 0
    down, across = (float(spacing) for spacing in image.PixelSpacing)
    tall, wide = chi.shape[0] * down, chi.shape[1] * across
    scale = SIDE / max(tall, wide)
    picture = Image.fromarray(grey.astype(np.uint8)).resize(
        (max(1, round(wide * scale)), max(1, round(tall * scale))), Image.Resampling.LANCZOS
    )
    square = Image.new("L", (SIDE, SIDE))
    square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return square


def _around(empty: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of it hangs together with the border: there is no value, while inside 0 ppb is one."""
    border = np.ones_like(empty)
    border[1:-1, 1:-1] = False
    return np.asarray(ndimage.binary_propagation(border & empty, mask=empty))
