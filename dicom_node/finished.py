"""A finished result as it lies on disk: its record, its images as volumes, and whose it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import NodeError

Volume = NDArray[np.float32]


class NoResult(NodeError):
    """A job that does not exist, or that has no result (yet), or none that this version can read."""


@dataclass(frozen=True)
class Finished:
    """folder: holds dicom/ and report.json.  record: report.json."""

    folder: Path
    record: dict[str, Any]

    @cached_property
    def header(self) -> Dataset:
        """The first slice of the QSM series, without its pixels: patient, study and scan."""
        return dcmread(self._files("qsm")[0], stop_before_pixels=True)

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """4×4, voxel (column, row, slice) → patient RAS in mm (PS3.3 C.7.6.2.1.1)."""
        files = self._files("qsm")
        first, last = (dcmread(path, stop_before_pixels=True) for path in (files[0], files[-1]))
        row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
        down, across = map(float, first.PixelSpacing)
        origin, end = (np.array(slice_.ImagePositionPatient, float) for slice_ in (first, last))
        lps = np.eye(4)
        lps[:3, 0], lps[:3, 1], lps[:3, 2] = row * across, column * down, (end - origin) / max(len(files) - 1, 1)
        lps[:3, 3] = origin
        return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)

    @property
    def files(self) -> list[Path]:
        """All of its DICOM objects."""
        return sorted((self.folder / "dicom").glob("*.dcm"))

    def has(self, kind: str) -> bool:
        """Whether there is a series of this kind: "qsm", "r2star", …, as in the names of its files."""
        return any(self._named(kind))

    def volume(self, kind: str) -> Volume:
        """(x, y, z), in the unit of the series.

        Unrounded where the result holds a Parametric Map of it; else what the images hold, in whole units.
        """
        for path in self._named("parametric"):
            held = dcmread(path)
            if held.ContentLabel.lower() == kind:
                return self._in_slice_order(held)
        return np.stack([dcmread(path).pixel_array.T for path in self._files(kind)], axis=-1).astype(np.float32)

    def regions(self) -> dict[str, NDArray[np.bool_]]:
        """Every segment by its name, (x, y, z).

        They are numbered in the order of the record, which has the names that a character set may lack letters for.
        """
        segmentation = hd.seg.segread(self._files("seg")[0])
        slices = [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in self._files("qsm")]
        found = segmentation.get_pixels_by_source_instance(slices, assert_missing_frames_are_empty=True)
        names = self.record["regions"]
        return {name: found[..., place].transpose(2, 1, 0).astype(bool) for place, name in enumerate(names)}

    def _in_slice_order(self, held: Dataset) -> Volume:
        """The frames of a multi-frame object, (x, y, z): their order in the object is their own."""
        slices = [dcmread(path, stop_before_pixels=True) for path in self._files("qsm")]
        frames = {
            tuple(group.PlanePositionSequence[0].ImagePositionPatient): frame
            for group, frame in zip(held.PerFrameFunctionalGroupsSequence, held.pixel_array, strict=True)
        }
        ordered = [frames[tuple(slice_.ImagePositionPatient)].T for slice_ in slices]
        return np.stack(ordered, axis=-1).astype(np.float32)

    def _files(self, kind: str) -> list[Path]:
        files = self._named(kind)
        if not files:
            raise NoResult(f"{self.folder / 'dicom'} holds no {kind}; run the job again with this version")
        return files

    def _named(self, kind: str) -> list[Path]:
        return sorted((self.folder / "dicom").glob(f"??-{kind}-*.dcm"))


def read_result(folder: Path) -> Finished:
    """Of a job's result folder or of the folder that `reconstruct --out` wrote.  Raises NoResult."""
    try:
        record = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoResult(f"{folder} holds no report.json; expected a job that is done, or a folder of results") from error
    except ValueError as error:
        raise NoResult(f"{folder / 'report.json'} cannot be read: {error}") from error
    missing = {"recipe", "regions", "grade", "software"} - record.keys()
    if missing:
        raise NoResult(f"{folder / 'report.json'} lacks {', '.join(sorted(missing))}; run the job again")
    return Finished(folder, record)


def find_result(job: str, state_folder: Path) -> Finished:
    """job: a job's number, or a folder of results.  Raises NoResult."""
    if job.isdecimal() and not Path(job).is_dir():
        folder = state_folder / "jobs" / job
        if not folder.is_dir():
            raise NoResult(f"there is no folder of job {job} in {state_folder}; qsm-node status lists the jobs")
        return read_result(folder / "result")
    return read_result(Path(job).expanduser())
