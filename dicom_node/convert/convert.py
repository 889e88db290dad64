"""Makes an acquisition of a group: volumes in slice order, phase in radian, echo times, field and geometry."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.convert import geometry
from dicom_node.convert.header import MALFORMED, number, text, values
from dicom_node.convert.larmor import larmor_frequency
from dicom_node.convert.matrix import POLAR, Cell, Matrix
from dicom_node.convert.pixels import rescaled, stored_values
from dicom_node.convert.planes import ENHANCED, detached, is_enhanced, planes
from dicom_node.convert.reader import Reader, Scale, rescale
from dicom_node.convert.readers import reader_of
from dicom_node.convert.refusal import is_lossy
from dicom_node.convert.source import Reference, Source
from dicom_node.errors import NotConvertible
from dicom_node.model import Component, Frame, Group, Instance
from reconstruction import Acquisition, Geometry, InvalidAcquisition

_PHASE_LIMIT = 1.01 * math.pi
"""Phase beyond this was not what its scale said (Philips' π is 3.142)."""


def convert(group: Group) -> tuple[Acquisition, Source]:
    """Reads the pixels of a complete group.

    Magnitude is in the vendor's rescaled unit, phase in radian by the vendor's own rule and with the sign that
    `reconstruction.acquisition` asks for.  Raises NotConvertible with the reason where no acquisition can be made.
    """
    matrix = Matrix.of(group.instances)
    holes = matrix.holes()
    if holes or not group.instances:
        raise NotConvertible(f"the acquisition is not complete: {'; '.join(holes) or 'no images'}")
    grid = _geometry(matrix)
    content = _read(matrix, grid)
    first = content.headers[0]
    frequency, doubts = larmor_frequency(first)
    magnitude, phase = _polar(matrix, content.volumes)
    try:
        acquisition = Acquisition(
            magnitude=magnitude,
            phase=phase,
            echo_times=tuple(echo_time * 1e-3 for echo_time in matrix.echo_times),
            larmor_frequency=frequency,
            geometry=grid,
        )
    except InvalidAcquisition as error:
        raise NotConvertible(f"the images make no acquisition: {error}") from error
    source = Source(
        headers=tuple(content.headers[slice_] for slice_ in range(matrix.slices)),
        references=tuple(tuple(content.references[slice_]) for slice_ in range(matrix.slices)),
        affine=_affine(matrix),
        encoding=group.instances[0].encoding,
        lossy=content.lossy,
        warnings=(*content.warnings, *doubts, *_zero_filling(first)),
    )
    return acquisition, source


# Geometry


def _outer(matrix: Matrix) -> tuple[Instance, Frame, Frame]:
    """The frames of the outer slices of the first echo."""
    component = matrix.components[0]
    instance, first = matrix.source(component, 0, 0)
    return instance, first, matrix.source(component, 0, matrix.slices - 1)[1]


def _geometry(matrix: Matrix) -> Geometry:
    instance, first, _ = _outer(matrix)
    spacing = geometry.slice_spacing(matrix.grid.slice_starts)
    rows, columns = instance.pixel_spacing
    return Geometry(
        shape=(instance.columns, instance.rows, matrix.slices),
        voxel_size=(columns, rows, spacing),
        b0_direction=geometry.b0_direction(first.orientation),
    )


def _affine(matrix: Matrix) -> NDArray[np.float64]:
    instance, first, last = _outer(matrix)
    return geometry.affine(first.orientation, instance.pixel_spacing, first.position, last.position, matrix.slices)


# Pixels


@dataclass
class _Content:
    """What reading the files brings together.  headers, references: by slice."""

    volumes: dict[Component, NDArray[np.float32]]
    headers: dict[int, Dataset] = field(default_factory=dict)
    references: dict[int, list[Reference]] = field(default_factory=lambda: defaultdict(list))
    warnings: dict[str, None] = field(default_factory=dict)  # a set that keeps its order
    lossy: bool = False


def _read(matrix: Matrix, grid: Geometry) -> _Content:
    """One file after the other, slice by slice into the volumes (echo, x, y, z)."""
    shape = (len(matrix.echo_times), *grid.shape)
    content = _Content({component: np.zeros(shape, np.float32) for component in matrix.components})
    for instance, cells in _by_instance(matrix):
        header = _opened(instance)
        reader = reader_of(header)
        described = list(planes(header))
        if reader is None or len(described) <= max(frame.index for frame, _ in cells):
            raise NotConvertible(f"{instance.path.name} is not what it was when it was described")
        enhanced = is_enhanced(header)
        content.lossy |= is_lossy(header, text(header.file_meta, "TransferSyntaxUID"))
        stored = stored_values(instance.path if enhanced else header, [frame.index for frame, _ in cells])
        for (frame, cell), pixels in zip(cells, stored, strict=True):
            _place(content, reader, described[frame.index], cell, pixels)
            content.references[cell[2]].append(
                Reference(
                    sop_class_uid=instance.sop_class_uid,
                    sop_instance_uid=instance.sop_instance_uid,
                    series_instance_uid=instance.series_instance_uid,
                    frame=frame.index + 1 if enhanced else None,
                )
            )
    return content


def _opened(instance: Instance) -> FileDataset:
    """A classic object with its pixels; an enhanced one without: it can be large, its frames are read one by one."""
    try:
        header = dcmread(instance.path, stop_before_pixels=instance.sop_class_uid in ENHANCED, force=True)
    except MALFORMED as error:
        raise NotConvertible(f"{instance.path.name} cannot be read any more: {error}") from error
    if "TransferSyntaxUID" not in header.file_meta:
        # A file without preamble does not tell its encoding; pydicom found it out.
        implicit, _ = header.original_encoding
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return header


def _by_instance(matrix: Matrix) -> list[tuple[Instance, list[tuple[Frame, Cell]]]]:
    """The instances in the order of the cells that they fill, each with its frames."""
    found: dict[str, tuple[Instance, list[tuple[Frame, Cell]]]] = {}
    for component in matrix.components:
        for echo in range(len(matrix.echo_times)):
            for slice_ in range(matrix.slices):
                instance, frame = matrix.source(component, echo, slice_)
                frames = found.setdefault(instance.sop_instance_uid, (instance, []))[1]
                frames.append((frame, (component, echo, slice_)))
    return list(found.values())


def _place(content: _Content, reader: Reader, plane: Dataset, cell: Cell, stored: NDArray[Any]) -> None:
    component, echo, slice_ = cell
    volume = content.volumes[component]
    if stored.shape != volume.shape[2:0:-1]:
        raise NotConvertible(f"an image has {stored.shape} rows and columns, expected {volume.shape[2:0:-1]}")
    volume[echo, :, :, slice_] = _values(reader, plane, component, stored).T
    content.warnings |= dict.fromkeys(reader.warnings(plane))
    if echo == 0 and slice_ not in content.headers:
        content.headers[slice_] = detached(plane)


def _values(reader: Reader, plane: Dataset, component: Component, stored: NDArray[Any]) -> NDArray[np.float32]:
    bits, high = number(plane, "BitsStored"), number(plane, "HighBit")
    if bits is not None and high is not None and high != bits - 1:
        raise NotConvertible(f"HighBit is {high:g} with BitsStored {bits:g}; expected {bits - 1:g}")
    padding = number(plane, "PixelPaddingValue")
    padded = stored == padding if padding is not None else np.zeros(stored.shape, np.bool_)
    if component is not Component.PHASE:
        scale = _linear(plane, component)
        found = rescaled(stored, scale.slope, scale.intercept)
        found[padded] = 0
        return found
    scale = reader.radian(plane)
    found = rescaled(stored, scale.slope, scale.intercept)
    beyond = np.abs(found) > _PHASE_LIMIT
    # Only what lies outside a turn is padding: within it the same stored value is a phase like any other.
    found[beyond & padded] = 0
    if np.any(beyond & ~padded):
        raise NotConvertible(
            f"phase reaches {np.abs(found).max():.4g} rad after the vendor's rule; expected −π…π: the images were not "
            "stored as their header says"
        )
    return found


def _linear(plane: Dataset, component: Component) -> Scale:
    """Magnitude, real and imaginary parts share a unit over the whole acquisition; which one does not matter."""
    found = rescale(plane)
    if found is None and component is not Component.MAGNITUDE and not number(plane, "PixelRepresentation"):
        raise NotConvertible(f"the {component} part is unsigned and has no rescale: its zero is unknown")
    return found or Scale(1, 0)


def _polar(
    matrix: Matrix, volumes: dict[Component, NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    first, second = (volumes[component] for component in matrix.components)
    if matrix.components == POLAR:
        return first, second
    phase = np.arctan2(second, first)
    return np.hypot(first, second, out=first), phase


def _zero_filling(plane: Dataset) -> tuple[str, ...]:
    """AcquisitionMatrix against the image: interpolated images hold no more than was acquired."""
    acquired = [int(str(size)) for size in values(plane, "AcquisitionMatrix") if str(size).isdigit()]
    pixels = max(number(plane, "Rows") or 0, number(plane, "Columns") or 0)
    if not acquired or not 0 < max(acquired) < pixels:
        return ()
    return (f"images were interpolated in plane from {max(acquired)} to {pixels:g} pixels (zero filling)",)
