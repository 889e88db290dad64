"""The door out: maps and what they inherit from their source become DICOM objects, a picture and NIfTI files."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.convert.source import Source
from dicom_node.encode.figures import regions
from dicom_node.encode.identity import Identity, local_time
from dicom_node.encode.quantity import quantities
from dicom_node.encode.record import warnings
from dicom_node.encode.report import REPORT_NUMBER, encode_report
from dicom_node.encode.segmentation import SEGMENTATION_NUMBER, encode_segmentation
from dicom_node.encode.series import encode_series, series_number
from reconstruction import Maps, Recipe


def encode(maps: Maps, source: Source, recipe: Recipe, created: float) -> list[Dataset]:
    """The QSM series, the R2* series, the segmentation of the reported regions and the report, in sending order.

    created: seconds since the epoch, when the job was made.  It is all that the objects know of time, so that equal
    maps, sources, recipe and `created` give equal bytes.
    """
    header = source.headers[0]
    when = local_time(created, header)
    images = [image for quantity in quantities(maps) for image in encode_series(maps, quantity, source, recipe, when)]
    found = regions(maps)
    segmentation = encode_segmentation(
        found,
        images[: len(source.headers)],
        header,
        Identity.of(source, recipe),
        recipe,
        series_number(header, SEGMENTATION_NUMBER),
        when,
    )
    report = encode_report(
        maps,
        found,
        source,
        images,
        segmentation,
        recipe,
        warnings(maps, source),
        series_number(header, REPORT_NUMBER),
        when,
    )
    return [*images, segmentation, report]


__all__ = ["encode"]
