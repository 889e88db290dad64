"""What the output inherits from the images it is made from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.convert.override import Override


@dataclass(frozen=True)
class Reference:
    """One source image.  frame: its number from 1, None for an object of a single frame.

    series_instance_uid: an output refers to its sources by series (PS3.3 C.12.2), and they may come from several.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    frame: int | None


@dataclass(frozen=True, eq=False)
class Source:
    """Headers, references and provenance of an acquisition.

    headers: one for each slice in slice order, from the first echo's magnitude (or real part): pixel-free, standard
    attributes only, frames of enhanced objects in classic attributes (position, orientation, pixel spacing, echo time).
    references: for each slice every image that it was made from.
    affine: 4×4, voxel (column, row, slice) → patient RAS in mm.
    encoding: the reader that understood the objects.  lossy: whether any of them was ever compressed with loss.
    warnings: sentences for the report.  decisions: how phase was read and why, in sentences: scale, sign, polarity.
    override: what the site configured of it.  mask: which brain mask of the site's was used, "" for none.
    """

    headers: tuple[Dataset, ...]
    references: tuple[tuple[Reference, ...], ...]
    affine: NDArray[np.float64]
    encoding: str
    lossy: bool
    warnings: tuple[str, ...]
    decisions: tuple[str, ...] = ()
    override: Override = field(default_factory=Override)
    mask: str = ""
