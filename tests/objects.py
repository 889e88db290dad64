"""Small valid objects to send, to break and to look for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from dicom_node.spool import ReceivedObject, file_meta

STUDY = generate_uid(entropy_srcs=["tests", "study"])
SERIES = generate_uid(entropy_srcs=["tests", "series"])


def mr_image(number: int = 1, *, rows: int = 4, columns: int = 6, pixel: int = 0) -> Dataset:
    """An original MR image; its UID follows from `number`, its pixels from both."""
    image = Dataset()
    image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = generate_uid(entropy_srcs=["tests", "image", str(number)])
    image.Modality = "MR"
    image.PatientName = "Nobody^Test"
    image.PatientID = "TEST"
    image.EchoTime = "4.0"
    image.StudyInstanceUID = STUDY
    image.SeriesInstanceUID = SERIES
    image.FrameOfReferenceUID = generate_uid(entropy_srcs=["tests", "frame of reference"])
    image.SeriesNumber = 1
    image.InstanceNumber = number
    image.ImagePositionPatient = [0, 0, number]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows = rows
    image.Columns = columns
    image.PixelSpacing = [1, 1]
    image.BitsAllocated = 16
    image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    values = np.arange(rows * columns, dtype="<u2") + number + pixel
    image.PixelData = values.tobytes()
    image["PixelData"].VR = "OW"
    return image


def enhanced_mr_image(frames: int = 3) -> Dataset:
    """An Enhanced MR image, as far as a receiver looks."""
    image = mr_image(1000)
    image.SOPClassUID = EnhancedMRImageStorage
    del image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing
    image.NumberOfFrames = frames
    measures = Dataset()
    measures.PixelSpacing = [1, 1]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    image.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in range(frames):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, frame]
        group.PlanePositionSequence = [position]
        groups.append(group)
    image.PerFrameFunctionalGroupsSequence = groups
    image.PixelData = image.PixelData * frames
    return image


def encode(image: Dataset, transfer_syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """The data set as it goes over the network, in a syntax that neither compresses nor deflates."""
    stream = DicomBytesIO()
    stream.is_little_endian = transfer_syntax.is_little_endian
    stream.is_implicit_VR = transfer_syntax.is_implicit_VR
    write_dataset(stream, image)
    return bytes(stream.getvalue())


def received(image: Dataset, encoded: bytes | None = None) -> ReceivedObject:
    """What the receiver would hand to the spool."""
    return ReceivedObject(
        study_instance_uid=image.StudyInstanceUID,
        sop_class_uid=image.SOPClassUID,
        sop_instance_uid=image.SOPInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        source_ae="TEST",
        encoded=encode(image) if encoded is None else encoded,
    )


def write(folder: Path, *images: Dataset) -> list[Path]:
    """The images as DICOM files, explicit VR little endian."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, image in enumerate(images):
        path = folder / f"{index:05d}.dcm"
        path.write_bytes(part_10(image, encode(image)))
        paths.append(path)
    return paths


def part_10(image: Dataset, data_set: bytes) -> bytes:
    """A file that claims to be `image` and holds other bytes, or none."""
    uids = image.SOPClassUID, image.SOPInstanceUID
    return file_meta(*uids, ExplicitVRLittleEndian, "TEST") + data_set


def with_meta(image: Dataset, transfer_syntax: UID) -> Dataset:
    """The image ready for pydicom's save_as and compress."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = transfer_syntax
    return image
