"""A brain mask of the site's own, as NIfTI or as DICOM Segmentation, on the grid of the images and no other.

Nothing is resampled: a mask that was moved by half a voxel is another mask.  Axes in another order or direction are
no other grid, and are turned.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.misc import is_dicom
from pydicom.uid import SegmentationStorage

from dicom_node.convert import geometry
from dicom_node.convert.brain import brain_segments
from dicom_node.convert.header import items, numbers, text, whole
from dicom_node.convert.pixels import decoding
from dicom_node.convert.source import Source
from dicom_node.errors import NotConvertible
from reconstruction import Acquisition

Mask = NDArray[np.bool_]

TOLERANCE = 0.1
"""Of a voxel, by which a corner may lie elsewhere: headers round, and affines are kept in float32."""

INSIDE = 0.5
"""Above it a voxel belongs to the mask: probabilities, 0 and 1, 0 and 255, and labels alike."""


def with_mask(acquisition: Acquisition, source: Source, path: Path | None) -> tuple[Acquisition, Source]:
    """The same acquisition with the mask of a file, and a source that says so; unchanged where there is no file.

    Raises NotConvertible where the file is no mask or lies on another grid.
    """
    if path is None:
        return acquisition, source
    mask, name = _segmentation(path, source, acquisition) if is_dicom(path) else _nifti(path, source, acquisition)
    volume_ml = mask.sum() * acquisition.geometry.voxel_volume / 1000
    said = f"the brain mask is the site's own ({name}, {volume_ml:.0f} ml); none was looked for"
    return replace(acquisition, mask=mask), replace(source, mask=name, warnings=(*source.warnings, said))


def named(sop_instance_uid: str) -> str:
    """How a source names a segmentation that was used."""
    return f"segmentation {sop_instance_uid}"


def _nifti(path: Path, source: Source, acquisition: Acquisition) -> tuple[Mask, str]:
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise ImageFileError(f"it is {type(image).__name__}")
        values = np.asarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise NotConvertible(f"the mask {path.name} is neither NIfTI nor DICOM that can be read: {error}") from error
    if not (image.header["qform_code"] or image.header["sform_code"]):
        raise NotConvertible(f"the mask {path.name} does not say where it lies (qform and sform code 0)")
    values = values.reshape(values.shape[:3]) if values.ndim > 3 and values[0, 0, 0].size == 1 else values
    if values.ndim != 3:
        raise NotConvertible(f"the mask {path.name} has the shape {values.shape}; expected a volume")
    shape = acquisition.geometry.shape
    placed = on_grid(values > INSIDE, image.affine, source.affine, shape)
    if placed is None or values.size != placed.size:
        raise _other_grid(values.shape, image.affine, source.affine, shape)
    return placed, f"NIfTI with SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _segmentation(path: Path, source: Source, acquisition: Acquisition) -> tuple[Mask, str]:
    """Frame by frame: a segmentation leaves out those that are empty."""
    with decoding(f"the mask {path.name}"):
        header = dcmread(path)
        frames = np.atleast_3d(header.pixel_array.T).T
    wanted = brain_segments(header)
    if text(header, "SOPClassUID") != SegmentationStorage or not wanted:
        raise NotConvertible(
            f"the mask {path.name} is no segmentation of the brain; expected a DICOM Segmentation with a segment of "
            "type brain (12738006, SCT), or NIfTI"
        )
    affine, shape = source.affine, acquisition.geometry.shape
    scale = (whole(header, "MaximumFractionalValue") or 1) if text(header, "SegmentationType") == "FRACTIONAL" else 1
    total = np.zeros(shape, np.bool_)
    shared = next(iter(items(header, "SharedFunctionalGroupsSequence")), Dataset())
    places = items(header, "PerFrameFunctionalGroupsSequence")
    if len(places) != len(frames):
        raise NotConvertible(f"the mask {path.name} has {len(frames)} frames, {len(places)} of them described")
    for place, pixels in zip(places, frames, strict=True):
        if _found(place, shared, "SegmentIdentificationSequence", "ReferencedSegmentNumber", 1)[0] not in wanted:
            continue
        plane_affine = _frame_affine(place, shared, float(np.linalg.norm(affine[:3, 2])))
        plane = (pixels.T / scale > INSIDE)[:, :, None]
        placed = on_grid(plane, plane_affine, affine, shape)
        if placed is None:
            raise _other_grid(plane.shape, plane_affine, affine, shape)
        total |= placed
    return total, named(text(header, "SOPInstanceUID"))


def _frame_affine(place: Dataset, shared: Dataset, thickness: float) -> NDArray[np.float64]:
    """Voxel (column, row, 0) → RAS mm of one frame.  thickness: of the images' slices; a single plane has none."""
    orientation = _found(place, shared, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = _found(place, shared, "PixelMeasuresSequence", "PixelSpacing", 2)
    position = np.array(_found(place, shared, "PlanePositionSequence", "ImagePositionPatient", 3))
    directions = (orientation[0], orientation[1], orientation[2], orientation[3], orientation[4], orientation[5])
    beyond = position + thickness * geometry.normal(directions)
    return geometry.affine(
        directions,
        (spacing[0], spacing[1]),
        (position[0], position[1], position[2]),
        (float(beyond[0]), float(beyond[1]), float(beyond[2])),
        2,
    )


def _found(place: Dataset, shared: Dataset, macro: str, keyword: str, count: int) -> tuple[float, ...]:
    """Numbers of a frame's functional group, which may be shared by all (PS3.3 C.7.6.16)."""
    for group in (place, shared):
        for item in items(group, macro):
            if (values := numbers(item, keyword, count)) is not None:
                return values
    raise NotConvertible(f"a frame of the mask has no {keyword}: it cannot be placed in space")


def on_grid(
    mask: Mask, its_affine: NDArray[np.float64], affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> Mask | None:
    """The mask's voxels on a grid of `shape`, bool (x, y, z); None where they are not voxels of that grid.

    its_affine, affine: 4×4, voxel → RAS mm.
    """
    steps = np.linalg.inv(affine) @ its_affine
    turn, origin = np.rint(steps[:3, :3]).astype(int), np.rint(steps[:3, 3]).astype(int)
    if not ((np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()):
        return None
    corners = np.array(np.meshgrid(*((0, n - 1) for n in mask.shape))).reshape(3, -1)
    error = (steps[:3, :3] - turn) @ corners + (steps[:3, 3] - origin)[:, None]
    if np.abs(error).max() > TOLERANCE:
        return None
    order = np.abs(turn).argmax(axis=1)
    turned = mask.transpose(*order)
    backwards = turn[np.arange(3), order] < 0
    turned = turned[tuple(slice(None, None, -1 if back else 1) for back in backwards)]
    start = origin - np.where(backwards, np.array(turned.shape) - 1, 0)
    if (start < 0).any() or (start + turned.shape > shape).any():
        return None
    placed = np.zeros(shape, np.bool_)
    placed[tuple(slice(s, s + n) for s, n in zip(start, turned.shape, strict=True))] = turned
    return placed


def _other_grid(
    its_shape: tuple[int, ...], its_affine: NDArray[np.float64], affine: NDArray[np.float64], shape: tuple[int, ...]
) -> NotConvertible:
    return NotConvertible(
        f"the mask lies on another grid than the images: {_in_words(its_shape, its_affine)}; the images are "
        f"{_in_words(shape, affine)}: resample it to the images"
    )


def _in_words(shape: tuple[int, ...], affine: NDArray[np.float64]) -> str:
    sizes = " × ".join(f"{size:.4g}" for size in np.linalg.norm(affine[:3, :3], axis=0))
    first = ", ".join(f"{place:.2f}" for place in affine[:3, 3])
    axes = "".join(nibabel.aff2axcodes(affine))
    return f"{' × '.join(map(str, shape))} voxels of {sizes} mm along {axes}, the first at ({first}) mm"
