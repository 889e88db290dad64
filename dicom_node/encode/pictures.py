"""The pictures of the page: three planes of the map with the nuclei outlined, the magnitude beside, and a detail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicom_node.encode.anatomy import structure
from dicom_node.encode.drawing import HEADING, SMALL, Box, Sheet
from dicom_node.encode.planes import AXIAL, PLANES, SAGITTAL, Plane, View, cut, grey, outline
from dicom_node.encode.quantity import QSM, values
from dicom_node.regions import split
from reconstruction import Maps

COLUMN, GAP = 290, 6
LINE = 17
"""Of small type."""

MAGNITUDE_QUANTILES = (0.01, 0.995)
"""The magnitude is shown between these quantiles of the volume: a bright vessel must not darken the rest."""

THINNED = 2
"""Along each axis: an eighth of the voxels tells the quantiles as well."""

SCALE_BARS_MM = (50.0, 20.0, 10.0, 5.0, 2.0, 1.0)
"""The longest of these that takes no more than a third of a picture."""

MIDBRAIN = ("subthalamic_nucleus", "red_nucleus", "substantia_nigra")
"""A few millimetres wide, and lower than the axial plane of the large nuclei: these are enlarged."""
AROUND_MM = 9.0
"""Shown around the nuclei that are enlarged."""
SMALLEST_DETAIL = 90
"""Height below which nothing is enlarged."""

BRAIN_WIDTH_TO_LENGTH = 0.8
"""Of a small axial picture."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The volumes that are shown, turned into RAS axes and cut to the brain.

    chi: ppb.  nuclei: bool by structure, both sides in one.  left: bool, what of them is the patient's left, None where
    there are none.  dark, white: levels of the magnitude.
    """

    view: View
    chi: NDArray[np.generic]
    magnitude: NDArray[np.generic]
    nuclei: dict[str, NDArray[np.generic]]
    left: NDArray[np.generic] | None
    dark: float
    white: float

    @classmethod
    def of(cls, maps: Maps, affine: NDArray[np.float64]) -> Self:
        """affine: voxel index → patient RAS mm."""
        view = View.of(maps.brain_mask | maps.mask, maps.geometry.voxel_size, affine)
        # Black outside the mask: there is no value there, and 0 ppb is one.
        chi = np.where(view.turn(maps.mask), view.turn(values(maps, QSM)), QSM.window[0])
        magnitude = view.turn(maps.magnitude)
        thinned = magnitude[::THINNED, ::THINNED, ::THINNED].astype(np.float64)
        dark, bright = (float(level) for level in np.quantile(thinned, MAGNITUDE_QUANTILES))
        nuclei, left = _nuclei(maps, view)
        return cls(view, chi, magnitude, nuclei, left, dark, max(bright, dark + float(np.finfo(np.float32).tiny)))

    def extent(self, plane: Plane) -> tuple[float, float]:
        return self.view.extent(self.chi.shape, plane)

    def best(self, plane: Plane, wanted: Sequence[str] = ()) -> int:
        """The slice that shows most of the nuclei, each counted by the part of its largest section that is seen.

        wanted: of these; of all without them, axially then by area, which is that of the large ones.  The middle
        without any nuclei.
        """
        if not self.nuclei:
            return int(self.chi.shape[plane.across]) // 2
        across = tuple(axis for axis in range(3) if axis != plane.across)
        areas = np.array([np.count_nonzero(self.nuclei[name], axis=across) for name in wanted or self.nuclei], float)
        if wanted or plane is not AXIAL:
            areas /= areas.max(axis=1, keepdims=True)
        return int(areas.sum(axis=0).argmax())

    def map(self, plane: Plane, index: int, per_mm: float, width: int = 0) -> Image.Image:
        """The map in 1/per_mm mm a pixel.  width: of the nuclei's outlines, 0 for none."""
        low, high = QSM.window
        tile = grey(cut(self.chi, plane, index), low, high, self._size(plane, per_mm)).convert("RGB")
        if not width:
            return tile
        pixels = np.array(tile)
        for name, mask in self.nuclei.items():
            section = cut(mask, plane, index).astype(bool)
            if section.any():
                pixels[outline(section, tile.size, width)] = structure(name).colour
        return Image.fromarray(pixels)

    def anatomy(self, plane: Plane, index: int, per_mm: float) -> Image.Image:
        """The magnitude, likewise."""
        shown = cut(self.magnitude, plane, index)
        return grey(shown, self.dark, self.white, self._size(plane, per_mm)).convert("RGB")

    def named(self, plane: Plane, index: int) -> tuple[str, str]:
        """What a plane is called, with its hemisphere, and where its middle lies, in the scanner's millimetres."""
        where = self.view.position(plane, index, self.chi.shape)
        at = f"{plane.towards if where >= 0 else plane.away} {abs(where):.0f} mm"
        if plane is not SAGITTAL:
            return plane.name.capitalize(), at
        return f"Sagittal, {self._hemisphere(index)}", at

    def _hemisphere(self, index: int) -> str:
        """By the nuclei that the plane cuts; without any by the middle of what is shown."""
        if self.left is not None:
            cuts = {side: np.count_nonzero(mask[index]) for side, mask in self._sides().items()}
            if cuts["left"] != cuts["right"]:
                return max(cuts, key=cuts.__getitem__)
        offset = index - (self.chi.shape[0] - 1) / 2
        return "right" if offset > 1 else "left" if offset < -1 else "middle"

    def _sides(self) -> dict[str, NDArray[np.bool_]]:
        every = np.logical_or.reduce(list(self.nuclei.values()))
        return {"left": every & self.left, "right": every & ~np.asarray(self.left)}

    def _size(self, plane: Plane, per_mm: float) -> tuple[int, int]:
        width, height = self.extent(plane)
        return max(1, round(width * per_mm)), max(1, round(height * per_mm))


def _nuclei(maps: Maps, view: View) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.generic] | None]:
    """The nuclei that are outlined, each once for both sides, and what of them is left."""
    if maps.regions is None:
        return {}, None
    labels = view.turn(maps.regions.labels)
    numbers: dict[str, list[int]] = {}
    left = []
    for number, region in enumerate(maps.regions.names, start=1):
        name, side = split(region)
        if structure(name).nucleus:
            numbers.setdefault(name, []).append(number)
        if side == "left":
            left.append(number)
    masks = {name: np.isin(labels, of_it) for name, of_it in numbers.items()}
    return {name: mask for name, mask in masks.items() if mask.any()}, np.isin(labels, left) if masks else None


def planes(sheet: Sheet, scene: Scene, left: float, top: float, bottom: float) -> None:
    """Three rows of planes, the map at the left, the magnitude at the right, all at one scale; the grey scale below."""
    extents = [scene.extent(plane) for plane in PLANES]
    height = bottom - top - GAP * (len(PLANES) - 1)
    per_mm = min(COLUMN / max(width for width, _ in extents), height / sum(tall for _, tall in extents))
    spare = (height - per_mm * sum(tall for _, tall in extents)) / len(PLANES)
    lefts = (left, left + COLUMN + GAP)
    for at, words in zip(lefts, ("Susceptibility", "Magnitude"), strict=True):
        sheet.text((at, top - 10), words, HEADING, weight="semibold")
    for plane, (_, tall) in zip(PLANES, extents, strict=True):
        index, end = scene.best(plane), top + tall * per_mm + spare
        tiles = (
            scene.map(plane, index, per_mm * sheet.scale, sheet.scale),
            scene.anatomy(plane, index, per_mm * sheet.scale),
        )
        for at, tile in zip(lefts, tiles, strict=True):
            _tile(sheet, tile, (at, top, at + COLUMN, end), plane)
        _caption(sheet, scene.named(plane, index), left, top)
        if plane is AXIAL:
            _scale_bar(sheet, lefts[1] + COLUMN - 10, end - 10, per_mm)
        top = end + GAP
    _grey_scale(sheet, left, bottom + 6)


def detail(sheet: Sheet, scene: Scene, box: Box) -> None:
    """Enlarged: the axial plane that shows most of the midbrain's nuclei, or of all, outlined and plain."""
    left, top, right, bottom = box
    shown = [name for name in scene.nuclei if name in MIDBRAIN] or list(scene.nuclei)
    if not shown or bottom - top - LINE < SMALLEST_DETAIL:
        return
    index = scene.best(AXIAL, shown)
    seen = np.logical_or.reduce([cut(scene.nuclei[name], AXIAL, index).astype(bool) for name in shown])
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    wide, tall = scene.extent(AXIAL)
    mm = (wide / seen.shape[1], tall / seen.shape[0])
    need = [(ends[-1] + 1 - ends[0]) * size + 2 * AROUND_MM for ends, size in zip((columns, rows), mm, strict=True)]
    middle = [(ends[-1] + 1 + ends[0]) / 2 * size for ends, size in zip((columns, rows), mm, strict=True)]

    name, at = scene.named(AXIAL, index)
    sheet.text((left, top + 12), f"{name}, {at}, enlarged: outlined and plain", SMALL, weight="semibold")
    top += LINE + 3
    size = ((right - left - GAP) / 2, bottom - top)
    per_mm = min(size[0] / need[0], size[1] / need[1])
    x, y = (round((at * per_mm - n / 2) * sheet.scale) for at, n in zip(middle, size, strict=True))
    window = (x, y, x + round(size[0] * sheet.scale), y + round(size[1] * sheet.scale))
    for place, outlined in ((left, sheet.scale), (left + size[0] + GAP, 0)):
        whole = scene.map(AXIAL, index, per_mm * sheet.scale, outlined)
        _tile(sheet, whole.crop(window), (place, top, place + size[0], bottom), AXIAL)
    _scale_bar(sheet, right - 8, bottom - 8, per_mm, size[0])


def further(sheet: Sheet, scene: Scene, box: Box) -> None:
    """As many more axial planes as there is room for, from the lowest to the highest, evenly spread."""
    left, top, right, bottom = box
    sheet.text((left, top + 14), "Further axial planes", HEADING, weight="semibold")
    top += 24
    width = (right - left - GAP) / 2
    height = width / BRAIN_WIDTH_TO_LENGTH
    count = 2 * int((bottom - top + GAP) // (height + GAP))
    wide, tall = scene.extent(AXIAL)
    per_mm = min(width / wide, height / tall)
    for number, index in enumerate(_spread(scene.chi.shape[AXIAL.across], count)):
        x, y = left + (number % 2) * (width + GAP), top + (number // 2) * (height + GAP)
        _tile(sheet, scene.map(AXIAL, index, per_mm * sheet.scale), (x, y, x + width, y + height), AXIAL)
        sheet.label((x + 4, y + 4), scene.named(AXIAL, index)[1], SMALL, "lt")


def _spread(slices: int, count: int) -> Iterator[int]:
    return (round((number + 1) / (count + 1) * (slices - 1)) for number in range(count))


def _tile(sheet: Sheet, tile: Image.Image, box: Box, plane: Plane) -> None:
    """A picture in the middle of its box, which is black, with the letters of its edges."""
    left, top, right, bottom = box
    sheet.box(box, fill=(0, 0, 0))
    width, height = (pixels / sheet.scale for pixels in tile.size)
    sheet.paste(tile, ((left + right - width) / 2, (top + bottom - height) / 2))
    for letter, at, anchor in (
        (plane.left, (left + 5, (top + bottom) / 2), "lm"),
        (plane.right, (right - 5, (top + bottom) / 2), "rm"),
        (plane.top, ((left + right) / 2, top + 4), "mt"),
        (plane.bottom, ((left + right) / 2, bottom - 4), "mb"),
    ):
        sheet.label(at, letter, SMALL, anchor)


def _caption(sheet: Sheet, words: Sequence[str], left: float, top: float) -> None:
    for line, text in enumerate(words):
        sheet.label((left + 5, top + 5 + LINE * line), text, SMALL, "lt")


def _scale_bar(sheet: Sheet, right: float, bottom: float, per_mm: float, room: float = COLUMN) -> None:
    length = next((mm for mm in SCALE_BARS_MM if mm * per_mm <= room / 3), SCALE_BARS_MM[-1])
    left = right - length * per_mm
    sheet.line((left, bottom, right, bottom), (255, 255, 255), 2)
    sheet.label(((left + right) / 2, bottom - 4), f"{length / 10:g} cm", SMALL, "ms")


def _grey_scale(sheet: Sheet, left: float, top: float) -> None:
    """Of the map, with its window, below the map's column."""
    low, high = QSM.window
    scale = sheet.scale
    wedge = np.linspace(0, 255, COLUMN * scale).astype(np.uint8)
    sheet.paste(Image.fromarray(np.repeat(wedge[None, :], 9 * scale, axis=0)).convert("RGB"), (left, top))
    sheet.box((left, top, left + COLUMN, top + 9), outline=sheet.theme.line)
    for value, anchor in ((low, "ls"), (0, "ms"), (high, "rs")):
        x = left + (value - low) / (high - low) * COLUMN
        sheet.text((x, top + 24), f"{value:d}".replace("-", "−"), SMALL, anchor=anchor)
        sheet.line((x, top + 9, x, top + 13), sheet.theme.faint)
    sheet.text((left + COLUMN + GAP, top + 24), "ppb; magnitude in arbitrary units", SMALL, colour=sheet.theme.faint)
