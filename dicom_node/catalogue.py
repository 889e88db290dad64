"""The catalogue: what the node holds, sources and results, by patient, study, series and image (PS3.4 C.6).

It is made from the files in rounds of its own, off the path of receiver and jobs, and only where a peer may query or
retrieve: it is the one part of the database that holds patients' names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_node.matching import matches
from dicom_node.states import State
from dicom_node.store import Store

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
UNIQUE_KEY = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription"),
    "ReferringPhysicianName",
)
SERIES = (
    *("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime"),
    *("ProtocolName", "BodyPartExamined", "StationName", "Manufacturer"),
)
IMAGE = (
    *("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "ImageType", "NumberOfFrames", "Rows", "Columns"),
    *("EchoTime", "ContentDate", "ContentTime"),
)
"""What can be matched and is returned at each level, besides what is counted."""
COUNTED = {
    "PATIENT": ("NumberOfPatientRelatedStudies",),
    "STUDY": ("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
    "SERIES": ("NumberOfSeriesRelatedInstances",),
    "IMAGE": (),
}

BATCH = 200
"""Files in one transaction."""
MADE = (State.RECONSTRUCTED, State.SENDING, State.SENT, State.REFUSED, State.ARCHIVED)
"""Jobs in these states have results."""

_COLUMNS = {"StudyInstanceUID": "s.study_instance_uid", "SeriesInstanceUID": "e.series_instance_uid"}
_UID_COLUMNS = {"PatientID": "s.patient_id", **_COLUMNS, "SOPInstanceUID": "i.sop_instance_uid"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Held:
    """An object that the node can hand out."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Path


class Catalogue:
    """Called in rounds by the daemon; asked by the threads of associations."""

    def __init__(self, store: Store, jobs_folder: Path) -> None:
        self._store = store
        self._jobs_folder = jobs_folder
        self._arrivals = -1
        self._moves = -1
        self._unreadable: set[str] = set()

    def __call__(self) -> None:
        """One round: takes in what came since the last one."""
        [found] = self._store.rows("SELECT TOTAL(arrivals) AS arrivals FROM studies")
        if found["arrivals"] != self._arrivals:
            self._take_sources()
            self._arrivals = found["arrivals"]
        if (moves := self._store.last_move()) != self._moves:
            self._take_results()
            self._moves = moves
        for row in self._store.rows("SELECT DISTINCT job FROM held_images WHERE job IS NOT NULL"):
            if not self._folder(row["job"]).is_dir():
                self._store.database.execute("DELETE FROM held_images WHERE job = ?", [row["job"]])

    def find(self, level: str, query: Dataset) -> Iterator[dict[str, str]]:
        """Keyword to value of each entity of a level that a query fits.  Holds one of them at a time."""
        tables = {
            "PATIENT": ("s.attributes", "held_studies s", "s.patient_id"),
            "STUDY": ("s.attributes", "held_studies s", "s.study_instance_uid"),
            "SERIES": (
                "s.attributes, e.attributes",
                "held_studies s JOIN held_series e USING (study_instance_uid)",
                "e.series_instance_uid",
            ),
            "IMAGE": (
                "s.attributes, e.attributes, i.attributes",
                "held_studies s JOIN held_series e USING (study_instance_uid) "
                "JOIN held_images i USING (series_instance_uid)",
                "i.sop_instance_uid",
            ),
        }
        columns, joined, key = tables[level]
        where, values = _where(level, query)
        # A connection of its own: the cursor stays open for as long as the peer takes to read.
        with closing(Store(self._store.path, owner=False)) as reader:
            for row in reader.database.execute(
                f"SELECT {columns} FROM {joined} WHERE {where} GROUP BY {key} ORDER BY {key}", values
            ):
                found: dict[str, str] = {}
                for part in row:
                    found |= json.loads(part)
                if level == "PATIENT":
                    found = {keyword: found[keyword] for keyword in PATIENT}
                if set(COUNTED[level]) & {element.keyword for element in query}:
                    found |= self._count(level, found[UNIQUE_KEY[level]])
                if matches(query, found):
                    yield found

    def select(self, level: str, query: Dataset) -> list[Held]:
        """The objects of the entities that a retrieve names by its unique keys, in order of series and image."""
        where, values = _where(level, query)
        found = self._store.rows(
            f"""SELECT i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid, i.path FROM held_studies s
            JOIN held_series e USING (study_instance_uid) JOIN held_images i USING (series_instance_uid)
            WHERE {where} ORDER BY e.series_instance_uid, i.path""",
            values,
        )
        return [Held(**(row | {"path": Path(row["path"])})) for row in found]

    def _count(self, level: str, key: str) -> dict[str, str]:
        columns = {
            "PATIENT": "COUNT(DISTINCT s.study_instance_uid)",
            "STUDY": "GROUP_CONCAT(DISTINCT json_extract(e.attributes, '$.Modality')), "
            "COUNT(DISTINCT e.series_instance_uid), COUNT(*)",
            "SERIES": "COUNT(*)",
        }
        [row] = self._store.database.execute(
            f"""SELECT {columns[level]} FROM held_studies s JOIN held_series e USING (study_instance_uid)
            JOIN held_images i USING (series_instance_uid) WHERE {_UID_COLUMNS[UNIQUE_KEY[level]]} = ?""",
            [key],
        )
        return {keyword: str(value).replace(",", "\\") for keyword, value in zip(COUNTED[level], row, strict=True)}

    def _take_sources(self) -> None:
        new = self._store.rows(
            """SELECT i.path FROM instances i LEFT JOIN held_images h USING (sop_instance_uid)
            WHERE h.sop_instance_uid IS NULL ORDER BY i.received_at"""
        )
        self._take([Path(row["path"]) for row in new if row["path"] not in self._unreadable], None)

    def _take_results(self) -> None:
        known = {row["job"] for row in self._store.rows("SELECT DISTINCT job FROM held_images WHERE job IS NOT NULL")}
        made = {move.job for move in self._store.journal(max(self._moves, 0)) if move.target is State.RECONSTRUCTED}
        for job in self._store.jobs(*MADE):
            if job.id in made or job.id not in known:
                self._store.database.execute("DELETE FROM held_images WHERE job = ?", [job.id])
                self._take(sorted(self._folder(job.id).glob("*.dcm")), job.id)

    def _take(self, paths: Sequence[Path], job: int | None) -> None:
        for start in range(0, len(paths), BATCH):
            entries = [(path, self._read(path)) for path in paths[start : start + BATCH]]
            with self._store.transaction() as database:
                for path, header in entries:
                    if header is not None:
                        _insert(database, path, header, job)

    def _read(self, path: Path) -> Dataset | None:
        try:
            return dcmread(path, stop_before_pixels=True, specific_tags=[*PATIENT, *STUDY, *SERIES, *IMAGE])
        except (InvalidDicomError, OSError, ValueError, AttributeError, EOFError) as error:
            log.warning("not_catalogued", path=str(path), error=type(error).__name__)
            self._unreadable.add(str(path))
            return None

    def _folder(self, job: int) -> Path:
        return self._jobs_folder / str(job) / "result" / "dicom"


def _insert(database: Any, path: Path, header: Any, job: int | None) -> None:
    study, series, image = (
        json.dumps(_attributes(header, keywords)) for keywords in ((*PATIENT, *STUDY), SERIES, IMAGE)
    )
    uid = {keyword: str(header.get(keyword, "")) for keyword in UNIQUE_KEY.values()}
    database.execute(
        "INSERT INTO held_studies VALUES (?, ?, ?) ON CONFLICT (study_instance_uid) DO NOTHING",
        [uid["StudyInstanceUID"], uid["PatientID"], study],
    )
    database.execute(
        "INSERT INTO held_series VALUES (?, ?, ?) ON CONFLICT (series_instance_uid) DO NOTHING",
        [uid["SeriesInstanceUID"], uid["StudyInstanceUID"], series],
    )
    database.execute(
        "INSERT INTO held_images VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sop_instance_uid) DO NOTHING",
        [
            *(uid["SOPInstanceUID"], uid["SeriesInstanceUID"], str(header.get("SOPClassUID", ""))),
            *(str(header.file_meta.TransferSyntaxUID), str(path), job, image),
        ],
    )


def _attributes(header: Dataset, keywords: Sequence[str]) -> dict[str, str]:
    found = {}
    for keyword in keywords:
        value = header.get(keyword)
        several = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
        found[keyword] = "" if value is None else "\\".join(map(str, several))
    return found


def _where(level: str, query: Dataset) -> tuple[str, dict[str, Any]]:
    """The unique keys of the level and those above it, as far as they have plain values."""
    clauses, values = ["1"], {}
    for above in LEVELS[: LEVELS.index(level) + 1]:
        keyword = UNIQUE_KEY[above]
        element = query.get(keyword)
        if not element or (above == "PATIENT" and any(sign in str(element) for sign in "*?")):
            continue
        several = [element] if isinstance(element, str) else list(element)
        clauses.append(f"{_UID_COLUMNS[keyword]} IN (SELECT value FROM json_each(:{keyword}))")
        values[keyword] = json.dumps([str(one) for one in several])
    return " AND ".join(clauses), values
