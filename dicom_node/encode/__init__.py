"""The door out: maps and what they inherit from their source become DICOM objects, a page and NIfTI files."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image
from pydicom.dataset import Dataset

from dicom_node.config import ranges_file
from dicom_node.convert.header import number
from dicom_node.convert.larmor import larmor_frequency
from dicom_node.convert.source import Source
from dicom_node.encode.capture import DOCUMENT_NUMBER, PAGE_NUMBER, encode_document, encode_page
from dicom_node.encode.enhanced import ENHANCED_NUMBER, encode_enhanced, is_enhanced
from dicom_node.encode.figures import Region, regions
from dicom_node.encode.identity import Identity, local_time
from dicom_node.encode.page import document, draw
from dicom_node.encode.parametric import PARAMETRIC_NUMBER, encode_parametric
from dicom_node.encode.presentation import COLOUR_NUMBER, GREY_NUMBER, encode_presentation
from dicom_node.encode.quantity import QSM, R2STAR, Quantity, quantities
from dicom_node.encode.ranges import Comparison, compare
from dicom_node.encode.record import warnings
from dicom_node.encode.report import REPORT_NUMBER, encode_report, rests_on
from dicom_node.encode.segmentation import SEGMENTATION_NUMBER, encode_segmentation
from dicom_node.encode.series import encode_series, inherited, series_number
from dicom_node.ranges import Ranges, read_ranges
from dicom_node.settings import Output
from reconstruction import GYROMAGNETIC_RATIO, Maps, Recipe

MEASURED = frozenset({QSM.name, R2STAR.name})
"""What the figures of the report are of."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """datasets: in sending order.  page: to look at.  regions, comparison, warnings: what stands in the report."""

    datasets: list[Dataset]
    page: Image.Image
    regions: tuple[Region, ...]
    comparison: Comparison | None
    warnings: tuple[str, ...]


def encode(maps: Maps, source: Source, recipe: Recipe, created: float, output: Output | None = None) -> Encoded:
    """The series of the maps, the segmentation of the reported regions, the report, and what `output` asks for.

    created: seconds since the epoch, when the job was made.  It is all that the objects know of time, so that equal
    maps, sources, recipe, output and `created` give equal bytes.  Raises as `wanted_ranges` does.
    """
    output = output or Output()
    header = source.headers[0]
    when = local_time(created, header)
    identity = Identity.of(source, recipe)
    frequency, _ = larmor_frequency(header)
    table = wanted_ranges(output)
    with ThreadPoolExecutor(1) as beside:  # figures and pictures are NumPy's work, which lets objects be made meanwhile
        measuring = beside.submit(regions, maps)
        slices = inherited(maps, source, identity)
        series = {
            quantity: encode_series(maps, quantity, source, recipe, when, slices)
            for quantity in quantities(maps, output.maps, frequency)
        }
        found = measuring.result()
        comparison = compare(table, found, maps.reference.name, header) if table else None
        told = warnings(maps, source, tuple(series), output.maps)
        drawing = beside.submit(draw, maps, source.affine, recipe, found, comparison, told, tesla=_tesla(header))
        segmentation = encode_segmentation(
            found, series[QSM], source, recipe, series_number(header, SEGMENTATION_NUMBER), when
        )
        measured = [image for quantity, images in series.items() if quantity.name in MEASURED for image in images]
        report = encode_report(
            maps,
            found,
            source,
            measured,
            segmentation,
            recipe,
            told,
            comparison,
            series_number(header, REPORT_NUMBER),
            when,
        )
    page = drawing.result()
    datasets = [image for images in series.values() for image in images]
    return Encoded(
        [
            *datasets,
            *_images(maps, source, recipe, identity, series, output, when),
            segmentation,
            report,
            *_for_people(maps, source, recipe, identity, series[QSM], found, comparison, told, page, output, when),
        ],
        page,
        found,
        comparison,
        told,
    )


def wanted_ranges(output: Output) -> Ranges | None:
    """The table of reference ranges, None where none is wanted.  Raises InvalidConfiguration."""
    return read_ranges(ranges_file(output.reference_ranges)) if output.reference_ranges else None


def _tesla(header: Dataset) -> float:
    """As the scanner is called: "3 T", where the exact field is 2.89."""
    return number(header, "MagneticFieldStrength") or larmor_frequency(header)[0] / GYROMAGNETIC_RATIO


def _images(
    maps: Maps,
    source: Source,
    recipe: Recipe,
    identity: Identity,
    series: dict[Quantity, list[Dataset]],
    output: Output,
    when: datetime.datetime,
) -> Iterator[Dataset]:
    """The same maps in the forms that research archives ask for."""
    header = source.headers[0]
    for quantity, images in series.items():
        if "parametric" in output.objects and quantity.unit is not None:
            place = series_number(header, PARAMETRIC_NUMBER + quantity.number)
            yield encode_parametric(maps, quantity, images, header, identity, recipe, place, when)
    for quantity, images in series.items():
        if "enhanced" in output.objects and is_enhanced(source):
            place = series_number(header, ENHANCED_NUMBER + quantity.number)
            yield encode_enhanced(maps, quantity, source, images, identity, recipe, place, when)


def _for_people(
    maps: Maps,
    source: Source,
    recipe: Recipe,
    identity: Identity,
    images: Sequence[Dataset],
    found: tuple[Region, ...],
    comparison: Comparison | None,
    told: Sequence[str],
    page: Image.Image,
    output: Output,
    when: datetime.datetime,
) -> Iterator[Dataset]:
    """What shows the map: the page, on paper too, and its window in grey and in colour."""
    header, basis = source.headers[0], rests_on(comparison)
    if "page" in output.objects:
        yield encode_page(page, header, identity, recipe, series_number(header, PAGE_NUMBER), when, basis)
    if "pdf" in output.objects:
        printed = document(maps, source.affine, recipe, found, comparison, told, tesla=_tesla(header), when=when)
        yield encode_document(printed, header, identity, recipe, series_number(header, DOCUMENT_NUMBER), when, basis)
    for wanted, place, colour in (("presentation", GREY_NUMBER, False), ("colour", COLOUR_NUMBER, True)):
        if wanted in output.objects:
            yield encode_presentation(
                QSM, images, header, identity, recipe, series_number(header, place), when, colour=colour
            )


__all__ = ["Encoded", "encode", "wanted_ranges"]
