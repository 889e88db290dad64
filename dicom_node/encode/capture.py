"""The page as DICOM: a Secondary Capture (PS3.3 A.8.1), and an Encapsulated PDF (A.45.1).

Neither holds a patient's name in its pixels: BurnedInAnnotation is NO.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from dicom_node.encode.identity import (
    Identity,
    inherit,
    inherit_patient_and_study,
    processing_equipment,
    stamp,
)
from dicom_node.encode.series import EQUIPMENT, file_meta
from dicom_node.identity import RESEARCH_ONLY
from reconstruction import Recipe

PAGE_NUMBER, DOCUMENT_NUMBER = 5, 16
"""Their places among the outputs' series numbers."""

TITLE = "QSM page"


def encode_page(
    page: Image.Image,
    header: Dataset,
    identity: Identity,
    recipe: Recipe,
    number: int,
    when: datetime.datetime,
    rests_on: Sequence[str],
) -> Dataset:
    """The page in its own pixels, RGB, uncompressed."""
    dataset = Dataset()
    _make(dataset, header, recipe, number, when)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = identity.uid("page", "instance", *rests_on)
    dataset.SeriesInstanceUID = identity.uid("page", "series", *rests_on)
    dataset.Modality = "OT"
    dataset.ConversionType = "SYN"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER", "QSMPAGE"]
    dataset.BodyPartExamined = "BRAIN"
    dataset.PatientOrientation = None
    dataset.ImageComments = RESEARCH_ONLY
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = page.height, page.width
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = np.asarray(page.convert("RGB")).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = file_meta(dataset)
    return dataset


def encode_document(
    content: bytes,
    header: Dataset,
    identity: Identity,
    recipe: Recipe,
    number: int,
    when: datetime.datetime,
    rests_on: Sequence[str],
) -> Dataset:
    """content: the page as a PDF."""
    dataset = Dataset()
    _make(dataset, header, recipe, number, when)
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = identity.uid("document", "instance", *rests_on)
    dataset.SeriesInstanceUID = identity.uid("document", "series", *rests_on)
    dataset.Modality = "DOC"
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = None
    dataset.ConceptNameCodeSequence = []
    dataset.DocumentTitle = TITLE
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(content)
    dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    dataset.file_meta = file_meta(dataset)
    return dataset


def _make(dataset: Dataset, header: Dataset, recipe: Recipe, number: int, when: datetime.datetime) -> None:
    inherit_patient_and_study(dataset, header)
    inherit(dataset, header, EQUIPMENT, empty=("Manufacturer",))
    stamp(dataset, when)
    dataset.SeriesNumber = number
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = TITLE
    dataset.BurnedInAnnotation = "NO"
    dataset.ContributingEquipmentSequence = [processing_equipment(recipe, when)]
