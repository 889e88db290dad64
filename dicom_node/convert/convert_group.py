"""Makes an acquisition of a group: volumes in slice order, phase in radian, echo times, field and geometry."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.convert import geometry
from dicom_node.convert.file import image_of
from dicom_node.convert.header import MALFORMED, number, text, values
from dicom_node.convert.larmor import larmor_frequency
from dicom_node.convert.matrix import Cell, Matrix
from dicom_node.convert.override import Override
from dicom_node.convert.phase import PHASE_LIMIT, Findings, polar, require_one_turn, say_scale, scaled
from dicom_node.convert.pixels import rescaled, stored_values
from dicom_node.convert.planes import ENHANCED, detached, is_enhanced, planes
from dicom_node.convert.reader import Reader, Scale, rescale
from dicom_node.convert.readers import name, reader_of
from dicom_node.convert.refusal import is_lossy
from dicom_node.convert.source import Reference, Source
from dicom_node.errors import NotConvertible
from dicom_node.model import Component, Frame, Group, Instance
from reconstruction import Acquisition, Geometry, InvalidAcquisition

_FEWEST_SLICES = 4
"""A dipole's field spreads over centimetres: fewer planes hold no volume that could be inverted."""

_NOTHING = Override()

_SLAB = 32
"""Planes that go into a volume together: neighbours along z share cache lines, so one plane at a time costs more."""

_SKEW = 16
"""Pixels (a cache line) between a row and the next: without them the same pixel of all planes that wait would fall to
one place of the cache, as their distance is a power of two."""


def convert(group: Group, override: Override | None = None) -> tuple[Acquisition, Source]:
    """Reads the pixels of a complete group.

    Magnitude is in the vendor's rescaled unit, phase in radian by the vendor's own rule and with the sign that
    `reconstruction.acquisition` asks for.  override: what the site configured for this scanner goes before the vendor's
    rule.  Raises NotConvertible with the reason where no acquisition can be made.
    """
    override = override or _NOTHING
    matrix = Matrix.of(group.instances)
    holes = matrix.holes()
    if holes or not group.instances:
        raise NotConvertible(f"the acquisition is not complete: {'; '.join(holes) or 'no images'}")
    grid = _geometry(matrix)
    content = _read(matrix, grid, override)
    first = content.headers[0]
    frequency, doubts = larmor_frequency(first)
    findings = content.findings
    magnitude, phase = polar(matrix.components, content.volumes, content.reader, override, findings)
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
        warnings=(*findings.warnings, *doubts, *_zero_filling(first), *_overlap(first, grid.voxel_size[2])),
        decisions=tuple(findings.decisions),
        override=override,
    )
    return acquisition, source


# Geometry


def _outer(matrix: Matrix) -> tuple[Instance, Frame, Frame]:
    """The frames of the outer slices of the first echo."""
    component = matrix.components[0]
    instance, first = matrix.source(component, 0, 0)
    return instance, first, matrix.source(component, 0, matrix.slices - 1)[1]


def _geometry(matrix: Matrix) -> Geometry:
    if matrix.slices < _FEWEST_SLICES:
        raise NotConvertible(
            f"the acquisition has {matrix.slices} slices; expected a volume of at least {_FEWEST_SLICES}"
        )
    instance, first, _ = _outer(matrix)
    spacing = geometry.slice_spacing(matrix.grid.slice_starts)
    rows, columns = instance.pixel_spacing
    return Geometry(
        shape=(instance.columns, instance.rows, matrix.slices),
        voxel_size=(columns, rows, spacing),
        b0_direction=geometry.b0_direction(first.orientation),
        affine=tuple(tuple(row) for row in _affine(matrix).tolist()),
    )


def _affine(matrix: Matrix) -> NDArray[np.float64]:
    instance, first, last = _outer(matrix)
    return geometry.affine(first.orientation, instance.pixel_spacing, first.position, last.position, matrix.slices)


# Pixels


@dataclass
class _Content:
    """What reading the files brings together.  headers, references: by slice.

    candidates: the scales between which the range of the stored phase must decide; the phase stays unscaled until then.
    """

    volumes: dict[Component, NDArray[np.float32]]
    reader: Reader
    turner: Executor
    headers: dict[int, Dataset] = field(default_factory=dict)
    references: dict[int, list[Reference]] = field(default_factory=lambda: defaultdict(list))
    findings: Findings = field(default_factory=Findings)
    candidates: set[tuple[Scale, ...]] = field(default_factory=set)
    lossy: bool = False
    slab: NDArray[np.float32] = field(init=False)
    other: NDArray[np.float32] = field(init=False)
    waiting: list[Cell] = field(default_factory=list)
    turning: Future[None] | None = None

    def __post_init__(self) -> None:
        _, columns, rows, slices = next(iter(self.volumes.values())).shape
        self.slab, self.other = np.empty((2, min(_SLAB, slices), rows, columns + _SKEW), np.float32)[..., :columns]

    def plane(self, cell: Cell) -> NDArray[np.float32]:
        """(row, column), to be filled at once: it waits for its neighbours."""
        if self.waiting:
            component, echo, slice_ = self.waiting[-1]
            if cell != (component, echo, slice_ + 1) or len(self.waiting) == len(self.slab):
                self.flush()
        self.waiting.append(cell)
        plane: NDArray[np.float32] = self.slab[len(self.waiting) - 1]
        return plane

    def flush(self) -> None:
        """Puts the planes that wait into their volume, beside what is read next."""
        if not self.waiting:
            return
        component, echo, first = self.waiting[0]
        count = len(self.waiting)
        volume = self.volumes[component][echo, :, :, first : first + count]
        self.settle()
        self.turning = self.turner.submit(np.copyto, volume, self.slab[:count].T)
        self.slab, self.other = self.other, self.slab
        self.waiting.clear()

    def settle(self) -> None:
        """Waits for the planes that were put last."""
        if self.turning is not None:
            self.turning.result()


def _read(matrix: Matrix, grid: Geometry, override: Override) -> _Content:
    """One file after the other, slice by slice into the volumes (echo, x, y, z)."""
    shape = (len(matrix.echo_times), *grid.shape)
    volumes = {component: np.zeros(shape, np.float32) for component in matrix.components}
    with ThreadPoolExecutor(1) as turner:
        content = _filled(matrix, volumes, turner, override)
    _settle_phase(content)
    return content


def _filled(
    matrix: Matrix, volumes: dict[Component, NDArray[np.float32]], turner: Executor, override: Override
) -> _Content:
    content: _Content | None = None
    for instance, cells in _by_instance(matrix):
        header = _opened(instance)
        reader = reader_of(header)
        described = list(planes(header))
        if reader is None or len(described) <= max(frame.index for frame, _ in cells):
            raise NotConvertible(f"{instance.path.name} is not what it was when it was described")
        content = content or _Content(volumes, reader, turner)
        if reader is not content.reader:
            raise NotConvertible(f"the images are of two kinds, {name(content.reader)} and {name(reader)}")
        enhanced = is_enhanced(header)
        content.lossy |= is_lossy(header, text(header.file_meta, "TransferSyntaxUID"))
        stored = stored_values(instance.path if enhanced else header, [frame.index for frame, _ in cells])
        for (frame, cell), pixels in zip(cells, stored, strict=True):
            _place(content, described[frame.index], cell, pixels, override)
            content.references[cell[2]].append(
                Reference(
                    sop_class_uid=instance.sop_class_uid,
                    sop_instance_uid=instance.sop_instance_uid,
                    series_instance_uid=instance.series_instance_uid,
                    frame=frame.index + 1 if enhanced else None,
                )
            )
    if content is None:
        raise NotConvertible("no images")
    content.flush()
    content.settle()
    return content


def _settle_phase(content: _Content) -> None:
    """Decides the scale where the headers left it open; what is no phase (padding, NaN) becomes 0."""
    phase = content.volumes.get(Component.PHASE)
    if phase is None:
        return
    if len(content.candidates) > 1:
        raise NotConvertible("the headers of the phase images differ in what they leave open of its scale")
    for candidates in content.candidates:
        scaled(phase, candidates, content.findings)
        require_one_turn(phase)
    for echo in phase:
        echo[np.isnan(echo)] = 0


def _opened(instance: Instance) -> FileDataset:
    """A classic object with its pixels; an enhanced one without: it can be large, its frames are read one by one."""
    try:
        enhanced = instance.sop_class_uid in ENHANCED
        header = dcmread(instance.path, stop_before_pixels=True, force=True) if enhanced else image_of(instance.path)
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


def _place(content: _Content, plane: Dataset, cell: Cell, stored: NDArray[Any], override: Override) -> None:
    component, echo, slice_ = cell
    volume = content.volumes[component]
    if stored.shape != volume.shape[2:0:-1]:
        raise NotConvertible(f"an image has {stored.shape} rows and columns, expected {volume.shape[2:0:-1]}")
    _fill(content.plane(cell), content, plane, component, stored, override)
    content.findings.warnings |= dict.fromkeys(content.reader.warnings(plane, volume.shape[3]))
    if echo == 0 and slice_ not in content.headers:
        content.headers[slice_] = detached(plane)


def _fill(
    found: NDArray[np.float32],
    content: _Content,
    plane: Dataset,
    component: Component,
    stored: NDArray[Any],
    override: Override,
) -> None:
    """Rescales into `found`, phase to radian; 0 where there is no image, but NaN in phase whose scale is still open."""
    bits, high = number(plane, "BitsStored"), number(plane, "HighBit")
    if bits is not None and high is not None and high != bits - 1:
        raise NotConvertible(f"HighBit is {high:g} with BitsStored {bits:g}; expected {bits - 1:g}")
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        content.findings.warnings["pixels that are no number were set to 0"] = None
        stored = np.where(np.isfinite(stored), stored, np.nan)
    padded = _padded(plane, stored)
    if component is not Component.PHASE:
        # They share a unit over the whole acquisition; which one does not matter.
        scale = rescale(plane) or Scale(1, 0)
        rescaled(stored, scale.slope, scale.intercept, found)
        if padded is not None:
            found[padded] = 0
        if stored.dtype.kind == "f":
            found[np.isnan(found)] = 0
        return
    configured = override.scale(plane)
    scales = (configured,) if configured else content.reader.radian(plane)
    if len(scales) != 1:
        content.candidates.add(scales)
        found[...] = stored
        if padded is not None:
            found[padded] = np.nan
        return
    say_scale(scales[0], override, content.findings)
    rescaled(stored, scales[0].slope, scales[0].intercept, found)
    if padded is not None:
        # Only what lies outside a turn is padding: within it the same stored value is a phase like any other.
        found[padded & (np.abs(found) > PHASE_LIMIT)] = np.nan
    require_one_turn(found)


def _padded(plane: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """PixelPaddingValue alone, or the range to PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2); None without them."""
    value, limit = number(plane, "PixelPaddingValue"), number(plane, "PixelPaddingRangeLimit")
    if value is None:
        return None
    lowest, highest = sorted((value, value if limit is None else limit))
    return np.asarray((stored >= lowest) & (stored <= highest))


def _zero_filling(plane: Dataset) -> tuple[str, ...]:
    """AcquisitionMatrix against the image: interpolated images hold no more than was acquired."""
    acquired = [int(str(size)) for size in values(plane, "AcquisitionMatrix") if str(size).isdigit()]
    pixels = max(number(plane, "Rows") or 0, number(plane, "Columns") or 0)
    if not acquired or not 0 < max(acquired) < pixels:
        return ()
    return (f"images were interpolated in plane from {max(acquired)} to {pixels:g} pixels (zero filling)",)


def _overlap(plane: Dataset, spacing: float) -> tuple[str, ...]:
    """Slices thicker than their distance in a 3D acquisition were zero-filled to more than were acquired."""
    thickness = number(plane, "SliceThickness")
    if text(plane, "MRAcquisitionType") != "3D" or thickness is None or thickness < _OVERLAP * spacing:
        return ()
    return (f"slices of {thickness:g} mm are {spacing:g} mm apart: they were interpolated",)


_OVERLAP = 1.1
"""Thickness over distance; headers round both to about 1 %."""
