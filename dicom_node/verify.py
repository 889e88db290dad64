"""Whether what the node holds is still what it took in: every stored file against its digest, every row against files.

Nothing is changed: what to do about a finding needs a person, or the next start.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.outbox import Outbox, Row
from dicom_node.rebuild import DATABASE, LEDGER
from dicom_node.states import State
from dicom_node.store import Job, Store

RECENT = 60.0
"""Seconds in which a file may be on its way: received and not yet indexed, made and not yet registered."""
WITH_RESULTS = (State.RECONSTRUCTED, State.SENDING, State.REFUSED)
"""Jobs that still need what they have made."""


@dataclass(frozen=True)
class Finding:
    """what: in a few words, the same for all of a kind.  told: what was found, and what to do."""

    what: str
    path: Path
    told: str


@dataclass
class Verified:
    """How much was looked at, and what is wrong."""

    images: int = 0
    bytes: int = 0
    results: int = 0
    findings: tuple[Finding, ...] = ()


def verify(state_folder: Path, now: float, on_image: Callable[[int], None] = lambda count: None) -> Verified:
    """Reads every image once.  May run beside a node.  on_image: is told how many have been read.

    Raises UnknownSchema for a database of another version, sqlite3.Error for one that cannot be read.
    """
    found = Verified()
    with closing(Store(state_folder / DATABASE, owner=False)) as store:
        found.findings = (
            *_database(store),
            *_images(store, state_folder, now, found, on_image),
            *_strangers(store, state_folder, now),
            *_results(store, state_folder, found),
        )
    return found


def in_words(verified: Verified) -> str:
    """For people: a line for each finding, and what was looked at."""
    lines = [f"{one.what}: {one.path}\n    {one.told}" for one in verified.findings]
    read = f"{verified.images} images ({verified.bytes / 2**20:.0f} MiB) and {verified.results} results to be sent"
    return "\n".join([*lines, f"looked at {read}: {len(verified.findings) or 'no'} finding(s)"])


def as_data(verified: Verified) -> dict[str, Any]:
    """The same for machines."""
    findings = [{"what": one.what, "path": str(one.path), "told": one.told} for one in verified.findings]
    counted = {"images": verified.images, "bytes": verified.bytes, "results": verified.results}
    return {**counted, "findings": findings}


def _database(store: Store) -> Iterator[Finding]:
    remedy = "stop the node and make it anew: qsm-node rebuild"
    try:
        answers = [answer for (answer,) in store.database.execute("PRAGMA integrity_check(10)")]
        orphans = list(store.database.execute("PRAGMA foreign_key_check"))
    except sqlite3.DatabaseError as error:
        answers, orphans = [str(error)], []
    for answer in answers:
        if answer != "ok":
            yield Finding("database damaged", store.path, f"{answer}; {remedy}")
    if orphans:
        yield Finding("database damaged", store.path, f"{len(orphans)} rows belong to nothing; {remedy}")


def _images(
    store: Store, state_folder: Path, now: float, found: Verified, on_image: Callable[[int], None]
) -> Iterator[Finding]:
    rows = store.rows("SELECT path, digest, received_at FROM instances ORDER BY path")
    for row in rows:
        path = Path(row["path"])
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                found.bytes += file.tell()
        except FileNotFoundError:
            if _is_indexed(store, path):  # else it has been removed meanwhile
                yield Finding("image missing", path, "restore it from a backup, or send it again")
            continue
        except OSError as error:
            yield Finding("image unreadable", path, f"{error.strerror}: see to the disk, restore it from a backup")
            continue
        found.images += 1
        on_image(found.images)
        if digest != row["digest"]:
            remedy = "restore it from a backup; or move it away, restart the node and send it again"
            yield Finding("image changed", path, f"its digest is {digest}, and was {row['digest']}: {remedy}")
    known = {row["path"] for row in rows}
    for path in sorted((state_folder / "images").glob("*/*.dcm")):
        if str(path) not in known and _is_old(path, now) and not _is_indexed(store, path):
            yield Finding("image not indexed", path, "restart the node: it takes it in, or says why it cannot")


def _strangers(store: Store, state_folder: Path, now: float) -> Iterator[Finding]:
    """Files and folders that belong to nothing."""
    for part in sorted((state_folder / "receiving").glob("*")):
        if now - part.stat().st_mtime > 86400:
            yield Finding("left over", part, "never acknowledged: restart the node, which removes it")
    jobs = {job.id for job in store.jobs()}
    for folder, kind in (("jobs", "folder"), (LEDGER, "page")):
        for path in sorted((state_folder / folder).glob("*")):
            if path.stem.isdecimal() and int(path.stem) not in jobs:
                yield Finding(f"{kind} of no job", path, "the database does not know it: look at it, and delete it")


def _results(store: Store, state_folder: Path, found: Verified) -> Iterator[Finding]:
    outbox = Outbox(store)
    for job in store.jobs(*WITH_RESULTS):
        rows = {row.path: row for row in outbox.of(job.id)}
        folder = state_folder / "jobs" / str(job.id) / "result"
        for path in sorted(rows) or sorted((folder / "dicom").glob("*.dcm")) or [folder]:
            found.results += 1
            if (trouble := _trouble(path, rows.get(path))) and _is_still(store, job):
                yield Finding("result missing", path, f"{trouble}; job {job.id} makes it anew when it is to be sent")


def _trouble(path: Path, row: Row | None) -> str:
    try:
        uid = str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
    except FileNotFoundError:
        return "it is not there"
    except (OSError, InvalidDicomError, AttributeError, EOFError) as error:
        return f"it cannot be read: {error}"
    return f"it is {uid} and was {row.sop_instance_uid}" if row and row.sop_instance_uid != uid else ""


def _is_still(store: Store, job: Job) -> bool:
    """Whether the job has not moved on while its files were looked at."""
    now = store.job(job.id)
    return now is not None and (now.state, now.changed_at) == (job.state, job.changed_at)


def _is_indexed(store: Store, path: Path) -> bool:
    return bool(store.rows("SELECT 1 FROM instances WHERE path = :path", {"path": str(path)}))


def _is_old(path: Path, now: float) -> bool:
    try:
        return now - path.stat().st_mtime > RECENT
    except FileNotFoundError:
        return False
