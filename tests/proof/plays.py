"""What a worker does in the storm instead of the physics: it reads every image, and its results tell which they were.

Light to import, since every job is a process of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from dicom_node.convert import convert
from dicom_node.model import Group
from reconstruction import Recipe
from tests.dicom_node.making import a_report

KINDS = ("QSM", "R2*")


def tally(job_folder: Path, recipe: Recipe) -> Path:
    """A result of each kind, whose UID follows from the images, as that of a real one does."""
    paths = json.loads((job_folder / "job.json").read_text())["instances"]
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    [study] = {header.StudyInstanceUID for header in headers}
    told = digest_of(header.SOPInstanceUID for header in headers)
    folder = job_folder / "result" / "dicom"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        result = Dataset()
        result.SOPClassUID, result.SOPInstanceUID = MRImageStorage, generate_uid(entropy_srcs=[told, kind])
        result.StudyInstanceUID, result.SeriesInstanceUID = study, generate_uid(entropy_srcs=[told, kind, "series"])
        result.Modality, result.PatientID, result.SeriesDescription = "MR", "STORM", f"{kind} of {told[:40]}"
        result.file_meta = FileMetaDataset()
        result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        result.save_as(folder / f"{kind.rstrip('*')}.dcm", enforce_file_format=True)
    return a_report(job_folder / "result")


def expected(sop_instance_uids: Iterable[str]) -> set[str]:
    """The UIDs of the results of these images."""
    told = digest_of(sop_instance_uids)
    return {str(generate_uid(entropy_srcs=[told, kind])) for kind in KINDS}


def digest_of(sop_instance_uids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(map(str, sop_instance_uids))).encode()).hexdigest()


def measure(job_folder: Path, recipe: Recipe) -> Path:
    """One result whose comment is the fingerprint of the acquisition that the images were converted to."""
    from dicom_node.reconstruct import _sole_acquisition

    paths = [Path(path) for path in json.loads((job_folder / "job.json").read_text())["instances"]]
    header = dcmread(paths[0], stop_before_pixels=True)
    found = fingerprint(_sole_acquisition(paths))
    result = Dataset()
    result.SOPClassUID, result.SOPInstanceUID = MRImageStorage, generate_uid(entropy_srcs=[found])
    result.StudyInstanceUID, result.SeriesInstanceUID = header.StudyInstanceUID, generate_uid(entropy_srcs=[found, "s"])
    result.ImageComments = found
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    folder = job_folder / "result" / "dicom"
    folder.mkdir(parents=True, exist_ok=True)
    result.save_as(folder / "measured.dcm", enforce_file_format=True)
    return a_report(job_folder / "result")


def fingerprint(acquired: Group) -> str:
    """Of every voxel of every echo, their order and their places."""
    acquisition, source = convert(acquired)
    parts = [acquisition.magnitude.tobytes(), acquisition.phase.tobytes(), repr(acquisition.echo_times).encode()]
    return hashlib.sha256(b"".join([*parts, source.affine.round(3).tobytes()])).hexdigest()
