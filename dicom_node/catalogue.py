"""The catalogue: what the node holds, sources and results, by patient, study, series and image (PS3.4 C.6).

It is made from the files in rounds of its own, off the path of receiver and jobs, and only where a peer may query or
retrieve: it is the one part of the database that holds patients' names.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from sqlite_utils import Database

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

KEPT_FOLDER = "handing-out"
"""In the state folder: second names (hard links) of files that are handed out just now."""
BATCH = 200
"""Files in one transaction."""
MADE = (State.RECONSTRUCTED, State.SENDING, State.SENT, State.REFUSED, State.ARCHIVED)
"""Jobs in these states have results."""

_MADE = ", ".join(f"'{state}'" for state in MADE)
_COLUMNS = {"StudyInstanceUID": "s.study_instance_uid", "SeriesInstanceUID": "e.series_instance_uid"}
_UID_COLUMNS = {"PatientID": "s.patient_id", **_COLUMNS, "SOPInstanceUID": "i.sop_instance_uid"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Held:
    """An object that the node can hand out."""

    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Path


class Catalogue:
    """Called in rounds by the daemon; asked by the threads of associations."""

    def __init__(self, store: Store, jobs_folder: Path) -> None:
        self._store = store
        self._jobs_folder = jobs_folder
        self._kept = jobs_folder.with_name(KEPT_FOLDER)
        self._arrivals = -1
        self._moves = -1
        self._unreadable: set[str] = set()

    def __call__(self) -> None:
        """One round: takes in what came since the last one."""
        [found] = self._store.rows("SELECT TOTAL(arrivals) AS arrivals FROM studies")
        if found["arrivals"] != self._arrivals:
            self._take_sources()
            self._arrivals = found["arrivals"]
        self._withdraw()
        if (moves := self._store.last_move()) != self._moves:
            self._take_results()
            self._moves = moves

    @property
    def is_whole(self) -> bool:
        """Whether a round of this process has ended, and what is held tells of all that is here."""
        return self._moves >= 0

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
        where, values = _where(level, query, wild=True)
        last = None
        # A connection of its own: the cursor stays open for as long as the peer takes to read.
        with closing(Store(self._store.path, owner=False)) as reader:
            for entity, *parts in reader.database.execute(
                f"SELECT {key}, {columns} FROM {joined} WHERE {where} ORDER BY {key}", values
            ):
                found: dict[str, str] = {}
                for part in parts:
                    found |= json.loads(part)
                if level == "PATIENT":
                    found = {keyword: found[keyword] for keyword in PATIENT}
                # Each study of a patient tells of the patient in its own words; the first that fits is returned.
                if entity == last or not matches(query, found):
                    continue
                if set(COUNTED[level]) & {element.keyword for element in query}:
                    found |= self._count(level, found[UNIQUE_KEY[level]])
                if matches(query, found):
                    last = entity
                    yield found

    def select(self, level: str, query: Dataset) -> list[Held]:
        """The objects of the entities that a retrieve names by its unique keys, in order of series and image.

        Each key is taken by the letter: a retrieve has no wild cards (PS3.4 C.4.2.2.1).
        """
        where, values = _where(level, query, wild=False)
        found = self._store.rows(
            f"""SELECT s.study_instance_uid, i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid, i.path
            FROM held_studies s JOIN held_series e USING (study_instance_uid)
            JOIN held_images i USING (series_instance_uid)
            LEFT JOIN jobs j ON j.id = i.job WHERE {where} AND (i.job IS NULL OR j.state IN ({_MADE}))
            ORDER BY e.series_instance_uid, i.path""",
            values,
        )
        return [Held(**(row | {"path": Path(row["path"])})) for row in found]

    @contextmanager
    def kept(self, held: Sequence[Held]) -> Iterator[list[Held]]:
        """The same objects under names of their own for as long as they are handed out: a job that is run again
        meanwhile, or a folder that has had its time, takes none of them away.
        """
        self._kept.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._kept))
        try:
            yield [_linked(one, folder / f"{number}.dcm") for number, one in enumerate(held)]
        finally:
            shutil.rmtree(folder)

    def sweep(self) -> None:
        """At the start: what a process that is gone was handing out."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._kept)

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

    def _withdraw(self) -> None:
        """Forgets the results of jobs that are run again, are held back, or have lost their folders."""
        for row in self._store.rows(
            "SELECT id, state FROM jobs WHERE EXISTS (SELECT 1 FROM held_images WHERE job = jobs.id)"
        ):
            if row["state"] not in MADE or not self._folder(row["id"]).is_dir():
                self._forget(row["id"])

    def _forget(self, job: int) -> None:
        self._store.database.execute("DELETE FROM held_images WHERE job = ?", [job])

    def _take_results(self) -> None:
        """What was made since the last round; in the first one, what differs from what is on the disk."""
        if first := self._moves < 0:
            made = set()
        else:
            made = {move.job for move in self._store.journal(self._moves) if move.target is State.RECONSTRUCTED}
        known = {row["job"] for row in self._store.rows("SELECT DISTINCT job FROM held_images WHERE job IS NOT NULL")}
        for job in self._store.jobs(*MADE):
            if (job.id in made or job.id not in known or first) and self._folder(job.id).is_dir():
                files = sorted(self._folder(job.id).glob("*.dcm"))
                if job.id in made or self._held(job.id) != {str(path) for path in files}:
                    self._forget(job.id)
                    self._take(files, job.id)

    def _held(self, job: int) -> set[str]:
        return {row["path"] for row in self._store.rows("SELECT path FROM held_images WHERE job = :job", {"job": job})}

    def _take(self, paths: Sequence[Path], job: int | None) -> None:
        for start in range(0, len(paths), BATCH):
            entries = [entry for path in paths[start : start + BATCH] if (entry := self._read(path))]
            with self._store.transaction() as database:
                for entry in entries:
                    if reason := _contradiction(database, entry):
                        self._leave(entry.path, reason)
                    else:
                        _insert(database, entry, job)

    def _read(self, path: Path) -> _Entry | None:
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=[*PATIENT, *STUDY, *SERIES, *IMAGE])
            return _entry(path, header)
        except Exception as error:  # noqa: BLE001 - whatever one header provokes, the others are taken
            self._leave(path, type(error).__name__)
            return None

    def _leave(self, path: Path, reason: str) -> None:
        log.warning("not_catalogued", path=str(path), reason=reason)
        self._unreadable.add(str(path))

    def _folder(self, job: int) -> Path:
        return self._jobs_folder / str(job) / "result" / "dicom"


def _linked(held: Held, name: Path) -> Held:
    """Where there can be no second name, as for a file that is gone, under its own: reading it will tell."""
    try:
        os.link(held.path, name)
    except OSError:
        return held
    return replace(held, path=name)


@dataclass(frozen=True)
class _Entry:
    """The rows of one file.  study, series, image: attributes as JSON."""

    path: Path
    uids: dict[str, str]
    sop_class_uid: str
    transfer_syntax_uid: str
    study: str
    series: str
    image: str


def _entry(path: Path, header: FileDataset) -> _Entry:
    """Raises whatever pydicom raises for a unique key that cannot be read; another attribute is unknown then."""
    return _Entry(
        path,
        {keyword: str(header.get(keyword, "")) for keyword in UNIQUE_KEY.values()},
        str(header.SOPClassUID),
        str(header.file_meta.TransferSyntaxUID),
        *(json.dumps(_attributes(path, header, keywords)) for keywords in ((*PATIENT, *STUDY), SERIES, IMAGE)),
    )


def _contradiction(database: Database, entry: _Entry) -> str:
    """Why a file does not fit those before it, "" if it does: what is one study's must never be handed out as
    another's, nor what is one patient's.
    """
    [(patient,)] = database.execute(
        "SELECT MAX(patient_id) FROM held_studies WHERE study_instance_uid = ?", [entry.uids["StudyInstanceUID"]]
    )
    [(study,)] = database.execute(
        "SELECT MAX(study_instance_uid) FROM held_series WHERE series_instance_uid = ?",
        [entry.uids["SeriesInstanceUID"]],
    )
    if patient is not None and patient != entry.uids["PatientID"]:
        return "its study is held as that of another patient"
    if study is not None and study != entry.uids["StudyInstanceUID"]:
        return f"its series is held as one of study {study}"
    return ""


def _insert(database: Database, entry: _Entry, job: int | None) -> None:
    patient, study, series, image = (entry.uids[UNIQUE_KEY[level]] for level in LEVELS)
    database.execute(
        "INSERT INTO held_studies VALUES (?, ?, ?) ON CONFLICT (study_instance_uid) DO NOTHING",
        [study, patient, entry.study],
    )
    database.execute(
        "INSERT INTO held_series VALUES (?, ?, ?) ON CONFLICT (series_instance_uid) DO NOTHING",
        [series, study, entry.series],
    )
    database.execute(
        "INSERT INTO held_images VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sop_instance_uid) DO NOTHING",
        [image, series, entry.sop_class_uid, entry.transfer_syntax_uid, str(entry.path), job, entry.image],
    )


def _attributes(path: Path, header: Dataset, keywords: Sequence[str]) -> dict[str, str]:
    found = {}
    for keyword in keywords:
        try:
            found[keyword] = _text(header.get(keyword))
        except Exception as error:  # noqa: BLE001 - pydicom decodes it here, and raises what the value provokes
            log.warning("attribute_not_catalogued", path=str(path), keyword=keyword, error=type(error).__name__)
            found[keyword] = ""
    return found


def _text(value: Any) -> str:
    several = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return "" if value is None else "\\".join(map(str, several))


def _where(level: str, query: Dataset, *, wild: bool) -> tuple[str, dict[str, Any]]:
    """The unique keys of the level and those above it, as far as they have values.

    wild: leaves out a Patient ID with wild cards, for one who matches what is selected.
    """
    clauses, values = ["1"], {}
    for above in LEVELS[: LEVELS.index(level) + 1]:
        keyword = UNIQUE_KEY[above]
        element = query.get(keyword)
        if not element or (wild and above == "PATIENT" and any(sign in str(element) for sign in "*?")):
            continue
        several = [element] if isinstance(element, str) else list(element)
        clauses.append(f"{_UID_COLUMNS[keyword]} IN (SELECT value FROM json_each(:{keyword}))")
        values[keyword] = json.dumps([str(one) for one in several if one])
    return " AND ".join(clauses), values
