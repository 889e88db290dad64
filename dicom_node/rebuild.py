"""The database is opened here by whoever serves, and made anew from files where it is gone or damaged.

    jobs, deliveries, journal   from the ledger (`dicom_node.ledger`), as they were at most some seconds before
    jobs without a page         from `jobs/N`, where it holds a result: for review, for nothing tells what became of it
    images                      from the spool, by `Index.reconcile`
    what was not taken          from `quarantine/` and `conflicts/`

Not made anew is what only the database knew: what was found in archives and not fetched yet (look again), commitment
that peers have asked of us and not been told of (they ask again), commitment that we have asked and not been told of
(it is asked again), and the list of what was removed.  The old database is kept beside the new one.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from sqlite_utils import Database

from dicom_node import store as stores
from dicom_node.errors import NodeError
from dicom_node.ledger import Ledger, pages
from dicom_node.relocate import relocate
from dicom_node.states import State
from dicom_node.store import Objection, Store

DATABASE, LEDGER = "node.db", "ledger"
CONFLICTED = "the same SOP Instance UID came before with other content: the first is used, this one is set aside"
_COMPANIONS = ("", "-wal", "-shm")
_PRIMARY = 0xFF
"""Of an SQLite result code: the rest says more (sqlite.org/rescode.html)."""

log = structlog.get_logger(__name__)


class DatabaseUnusable(NodeError):
    """It is there and cannot be used now, for a reason that making it anew would not mend."""


class DatabaseDamaged(NodeError):
    """It was found damaged while it was in use."""


@dataclass(frozen=True)
class Rebuilt:
    """set_aside: the old database, None where there was none.  jobs: by state.  adopted: jobs without a page."""

    set_aside: Path | None
    jobs: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    adopted: int = 0


def open_store(state_folder: Path, now: float) -> Store:
    """The database of a node that is about to serve; made anew where it is gone, empty or damaged.

    Raises DatabaseUnusable where it is locked or cannot be read, UnknownSchema where a newer software made it.
    """
    path = state_folder / DATABASE
    try:
        trouble = damage(path)
        if trouble and _has_memory(state_folder):
            log.error("database_damaged", path=str(path), trouble=trouble)
            rebuild(state_folder, now)
        store = Store(path)
        relocate(store, state_folder)
        return store
    except sqlite3.OperationalError as error:
        raise DatabaseUnusable(remedy(error, path)) from error


def damage(path: Path) -> str:
    """What is wrong with a database, "" if nothing is.  Raises sqlite3.OperationalError for one that cannot be read."""
    if not path.exists() or path.stat().st_size == 0:
        return "it is gone" if not path.exists() else "it is empty"
    try:
        with closing(sqlite3.connect(path, timeout=stores.BUSY_TIMEOUT)) as connection:
            [(answer,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
            tables = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'jobs'").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return str(error)
    if answer != "ok":
        return str(answer)
    return "" if tables else "it holds no jobs"


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is at fault."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_passing(error: sqlite3.Error) -> bool:
    """Whether the database is locked or its disk is full: no fault of ours, and over when somebody sees to it."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)


def rebuild(state_folder: Path, now: float) -> Rebuilt:
    """Makes the database anew; for whoever is alone in the state folder.  Killed at any point, it can be done again.

    Raises OSError and sqlite3.Error of the new database.
    """
    path, new = state_folder / DATABASE, state_folder / f"{DATABASE}.new"
    is_sound = _write_last_pages(path, state_folder / LEDGER)
    for companion in _COMPANIONS:
        Path(f"{new}{companion}").unlink(missing_ok=True)
    store = Store(new)
    try:
        with store.transaction() as database, _without_triggers(database):
            jobs, deliveries = _restore(database, state_folder / LEDGER)
            adopted = _adopt(database, state_folder / "jobs", now)
        for objection in _objections(state_folder):
            store.object_to(objection)
        store.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        store.close()
    set_aside = _set_aside(path, "replaced" if is_sound else "broken", now)
    new.replace(path)
    for companion in _COMPANIONS[1:]:
        Path(f"{new}{companion}").unlink(missing_ok=True)
    found = Rebuilt(set_aside, jobs, deliveries, adopted)
    log.warning("database_made_anew", jobs=jobs.total(), adopted=adopted, set_aside=str(set_aside))
    return found


def _has_memory(state_folder: Path) -> bool:
    """Whether a node has served here: a folder without anything in it gets an empty database."""
    damaged = (state_folder / DATABASE).exists()
    return damaged or any((state_folder / LEDGER).glob("*.json")) or any((state_folder / "jobs").glob("*/job.json"))


def remedy(error: sqlite3.Error, path: Path | str = "the database") -> str:
    """What went wrong, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if is_damage(error):
        return f"{path} is damaged: {error}; start the node again, which makes it anew, or see qsm-node rebuild"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another program holds {path} locked: end it (fuser -v {path} names it), and start the node again"
    if code == sqlite3.SQLITE_FULL:
        return f"there is no room to write to {path}: make room on its disk, and start the node again"
    return f"{path} cannot be used: {error}; see that the node's user owns it and that its disk is well"


def _write_last_pages(path: Path, ledger: Path) -> bool:
    """From a database that is sound: whether it is.  From another there is no more to be had than is written."""
    try:
        if damage(path):
            return False
        with closing(Store(path)) as store:
            Ledger(store, ledger).write_all()
    except (sqlite3.Error, NodeError) as error:
        log.warning("last_pages_not_written", error=str(error))
        return False
    return True


@contextmanager
def _without_triggers(database: Database) -> Iterator[None]:
    """In a transaction.  They would keep a job from being born where it was."""
    kept = list(database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    for name, _ in kept:
        database.execute(f"DROP TRIGGER {name}")
    yield
    for _, sql in kept:
        database.execute(sql)
    database.execute("INSERT INTO ledger_due (job) SELECT id FROM jobs")


def _restore(database: Database, ledger: Path) -> tuple[Counter[str], Counter[str]]:
    jobs: Counter[str] = Counter()
    deliveries: Counter[str] = Counter()
    for page in pages(ledger):
        database.execute("SAVEPOINT page")
        try:
            State(page.job["state"])
            _insert(database, "jobs", page.job)
            for row in page.deliveries:
                asked = row["commitment"] == "asked"  # of whom, and under which name, is not known any more
                _insert(database, "deliveries", row | ({"commitment": "due", "transaction_uid": None} if asked else {}))
            for line in page.journal:
                _insert(database, "journal", line)
        except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
            database.execute("ROLLBACK TO page")
            log.error("page_not_restored", job=page.job["id"], error=str(error))
            continue
        finally:
            database.execute("RELEASE page")
        jobs[page.job["state"]] += 1
        deliveries.update(row["outcome"] for row in page.deliveries)
    return jobs, deliveries


def _adopt(database: Database, jobs_folder: Path, now: float) -> int:
    """Jobs that have a result and no page; and no new job gets the number of a folder that is there."""
    known = {number for (number,) in database.execute("SELECT id FROM jobs")}
    numbers = sorted(int(folder.name) for folder in jobs_folder.glob("*") if folder.name.isdecimal())
    adopted = 0
    for number in numbers:
        if number in known or not (jobs_folder / str(number) / "result" / "report.json").is_file():
            continue
        try:
            row = _row_of(jobs_folder / str(number), number, now)
            _insert(database, "jobs", row)
        except (OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
            log.error("job_not_adopted", job=number, error=f"{type(error).__name__}: {error}")
            continue
        line = {"at": now, "job": number, "source": None, "target": row["state"], "reason": row["reason"]}
        _insert(database, "journal", line)
        adopted += 1
    if numbers:
        database.execute("DELETE FROM sqlite_sequence WHERE name = 'jobs'")
        database.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'jobs', MAX(?, COALESCE(MAX(id), 0)) FROM jobs",
            [numbers[-1]],
        )
    return adopted


def _row_of(folder: Path, number: int, now: float) -> dict[str, Any]:
    """Raises KeyError and the like for a job file of another software."""
    job = json.loads((folder / "job.json").read_text())
    source = json.loads((folder / "result" / "report.json").read_text())["source"]
    if job.get("reprocessed") and not job.get("own_recipe"):
        raise ValueError("its recipe is not told; reprocess the first job with it again")
    return {
        "id": number,
        "group_key": job["group"],
        "revision": job["revision"],
        "study_instance_uid": source["study_instance_uid"],
        "state": State.REVIEW.value,
        "reason": "the database was made anew, and no page of the ledger tells whether this result was sent, withheld "
        "or cancelled: look at it; a retry sends it",
        "images": json.dumps(sorted(source["sop_instance_uids"])),
        "due_at": now,
        "created_at": job["created_at"],
        "changed_at": now,
        "recipe": job.get("own_recipe", ""),
    }


def _insert(database: Database, table: str, row: Mapping[str, Any]) -> None:
    """Columns that this software does not have any more are left out."""
    known = [column for (_, column, *_) in database.execute(f"PRAGMA table_info({table})") if column in row]
    names, places = ", ".join(known), ", ".join("?" * len(known))
    database.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", [row[column] for column in known])


def _objections(state_folder: Path) -> Iterator[Objection]:
    for note in sorted((state_folder / "quarantine").glob("*.json")):
        try:
            told = json.loads(note.read_text())
            reason = f"{told['reason']} (answered {told['status']})"
            yield Objection(told["received_at"], str(note), told["calling_ae_title"], reason)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("note_not_read", path=str(note), error=str(error))
    for path in sorted((state_folder / "conflicts").glob("*/*.dcm")):
        yield Objection(path.stat().st_mtime, str(path), "", f"{CONFLICTED} (answered 0x0000)")


def _set_aside(path: Path, word: str, now: float) -> Path | None:
    """The old database under another name, with what SQLite keeps beside it: it may still be read by hand."""
    aside = path.with_name(f"{path.name}.{word}-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}")
    was_there = path.exists()
    for companion in _COMPANIONS:  # the database first: without it the rest counts for nothing
        if (file := Path(f"{path}{companion}")).exists():
            shutil.move(file, f"{aside}{companion}")
    return aside if was_there else None
