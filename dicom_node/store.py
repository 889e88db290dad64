"""The node's memory in SQLite: which images came, which jobs they make, where each job stands.

Every method is one transaction and may be called from any thread: each thread has its own connection.  `now` is handed
in, in seconds since the epoch.  A move between states is one UPDATE that names the state it starts from, so of two who
try only one succeeds; what the table of `states` does not have, a trigger refuses.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlite_utils import Database

from dicom_node import migrations, states
from dicom_node.model import Instance
from dicom_node.states import State

BUSY_TIMEOUT = 30.0
"""Seconds to wait for another writer; each writes for milliseconds."""

_DESCRIPTION = TypeAdapter(Instance)
_FIELDS = json.dumps(_DESCRIPTION.json_schema(), sort_keys=True)
_SOFTWARE = f"{version('qsm-node')} {hashlib.sha256(_FIELDS.encode()).hexdigest()[:8]}"
"""Rows that were described by anything else are described anew at the next start."""


@dataclass(frozen=True)
class Job:
    """One acquisition on its way.  images: SOP Instance UIDs to reconstruct from, sorted.  Times: s since the epoch."""

    id: int
    group_key: str
    revision: int
    study_instance_uid: str
    state: State
    reason: str
    images: tuple[str, ...]
    attempts: int
    due_at: float
    lease_until: float | None
    created_at: float
    changed_at: float


@dataclass(frozen=True)
class Move:
    """A line of the journal.  source: None where the job was born."""

    id: int
    at: float
    job: int
    source: State | None
    target: State
    reason: str


@dataclass(frozen=True)
class Objection:
    """An object that was not taken, and why.  path: where it lies now, None where nothing was kept."""

    at: float
    path: str | None
    peer: str
    reason: str


class Store:
    """The database in `path`.

    owner: whether it is made, or brought to the present schema, when it is opened.  Another, who looks at the database
    of a node that may be running, takes it as it is.  Raises UnknownSchema for one of a newer software, and to another
    than the owner for one of an older software.
    """

    def __init__(self, path: Path, *, owner: bool = True) -> None:
        self.path = path
        self._thread = threading.local()
        if owner:
            migrations.apply(self.database)
        else:
            migrations.require_present(self.database)

    @property
    def database(self) -> Database:
        """This thread's connection.  WAL with synchronous=FULL: what was committed survives a loss of power."""
        found: Database | None = getattr(self._thread, "database", None)
        if found is None:
            found = Database(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None))
            found.enable_wal()
            found.execute("PRAGMA synchronous = FULL")
            found.execute("PRAGMA foreign_keys = ON")
            self._thread.database = found
        return found

    def close(self) -> None:
        """Closes this thread's connection."""
        self.database.close()
        del self._thread.database

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """Several statements as one; within another transaction, a part of that.

        The write lock is taken first: one that is taken later could not wait for others.
        """
        database = self.database
        if database.conn.in_transaction:
            yield database
            return
        database.execute("BEGIN IMMEDIATE")
        with database.conn:
            yield database

    def rows(self, sql: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """All rows, so that a statement that writes and returns is over when this returns."""
        return list(self.database.query(sql, dict(values or {})))

    # images

    def add_instance(self, instance: Instance) -> bool:
        """Registers an image.  False if its SOP Instance UID is known already.

        What was objected to in its file before is forgotten: it could be described now.
        """
        values = {
            "uid": instance.sop_instance_uid,
            "study": instance.study_instance_uid,
            "path": str(instance.path),
            "at": instance.received_at,
            "software": _SOFTWARE,
            "description": _DESCRIPTION.dump_json(instance).decode(),
        }
        with self.transaction() as database:
            database.execute(
                "INSERT INTO studies (study_instance_uid) VALUES (:study) ON CONFLICT (study_instance_uid) DO NOTHING",
                values,
            )
            added = database.execute(
                """INSERT INTO instances
                    (sop_instance_uid, study_instance_uid, path, received_at, software, description)
                VALUES (:uid, :study, :path, :at, :software, :description)
                ON CONFLICT (sop_instance_uid) DO NOTHING""",
                values,
            ).rowcount
            if added:
                database.execute("DELETE FROM objections WHERE path = :path", values)
                self._reopen(database, instance.study_instance_uid)
        return bool(added)

    def remove_instances(self, paths: Sequence[str]) -> None:
        """Forgets images whose files are gone."""
        with self.transaction() as database:
            for path in paths:
                gone = database.execute("SELECT study_instance_uid FROM instances WHERE path = ?", [path]).fetchone()
                if gone:
                    database.execute("DELETE FROM instances WHERE path = ?", [path])
                    self._reopen(database, gone[0])

    def _reopen(self, database: Database, study: str) -> None:
        database.execute("UPDATE studies SET arrivals = arrivals + 1 WHERE study_instance_uid = ?", [study])

    def indexed(self) -> dict[str, tuple[str, float, bool]]:
        """path -> (SOP Instance UID, received at, whether this version of the software described it)."""
        found = self.database.execute("SELECT path, sop_instance_uid, received_at, software FROM instances")
        return {path: (uid, at, software == _SOFTWARE) for path, uid, at, software in found}

    def instances(self, study: str) -> list[Instance]:
        found = self.rows(
            "SELECT description FROM instances WHERE study_instance_uid = :study ORDER BY received_at, path",
            {"study": study},
        )
        return [_DESCRIPTION.validate_json(row["description"]) for row in found]

    def find(self, uids: Sequence[str]) -> list[Instance]:
        """The images of these SOP Instance UIDs, as far as they are known."""
        found = self.rows(
            """SELECT description FROM instances WHERE sop_instance_uid IN (SELECT value FROM json_each(:uids))""",
            {"uids": json.dumps(list(uids))},
        )
        return [_DESCRIPTION.validate_json(row["description"]) for row in found]

    def paths(self, uids: Sequence[str]) -> list[str]:
        """Where images lie, in the order of `uids`; those that are not known are left out."""
        values = {"uids": json.dumps(list(uids))}
        found = {
            row["sop_instance_uid"]: row["path"]
            for row in self.rows(
                """SELECT sop_instance_uid, path FROM instances
                WHERE sop_instance_uid IN (SELECT value FROM json_each(:uids))""",
                values,
            )
        }
        return [found[uid] for uid in uids if uid in found]

    def open_studies(self) -> list[tuple[str, int]]:
        """Studies that something came to since they were last settled, with the count of arrivals."""
        found = self.database.execute("SELECT study_instance_uid, arrivals FROM studies WHERE arrivals > settled")
        return [(study, arrivals) for study, arrivals in found]

    def settle_study(self, study: str, arrivals: int) -> None:
        """Nothing is left to wait for, as of this count of arrivals: one that came meanwhile keeps the study open."""
        self.database.execute(
            "UPDATE studies SET settled = :arrivals WHERE study_instance_uid = :study",
            {"study": study, "arrivals": arrivals},
        )

    def object_to(self, objection: Objection) -> None:
        """Remembers what was not taken.  The same file and reason count once."""
        self.database.execute(
            """INSERT INTO objections (at, path, peer, reason) SELECT :at, :path, :peer, :reason
            WHERE NOT EXISTS (SELECT 1 FROM objections WHERE path = :path AND reason = :reason)""",
            vars(objection),
        )

    def objections(self) -> list[Objection]:
        return [Objection(**row) for row in self.rows("SELECT at, path, peer, reason FROM objections ORDER BY id")]

    # jobs

    def open_job(self, group_key: str, revision: int, study: str, images: Sequence[str], now: float) -> Job:
        """A new job, waiting.  If another has just made it, that one."""
        reason = f"revision {revision}: images came after {revision - 1} was begun" if revision > 1 else "an image came"
        self.database.execute(
            """INSERT INTO jobs (group_key, revision, study_instance_uid, state, reason, images, due_at, created_at,
                changed_at) VALUES (:key, :revision, :study, :state, :reason, :images, :now, :now, :now)
            ON CONFLICT (group_key, revision) DO NOTHING""",
            {
                "key": group_key,
                "revision": revision,
                "study": study,
                "state": states.START,
                "reason": reason,
                "images": _sorted(images),
                "now": now,
            },
        )
        return self._job("group_key = :key AND revision = :revision", {"key": group_key, "revision": revision})

    def set_images(self, job: Job, images: Sequence[str]) -> None:
        """What a job that has not begun will be made from."""
        self.database.execute(
            "UPDATE jobs SET images = :images WHERE id = :id AND state = :state",
            {"id": job.id, "state": job.state, "images": _sorted(images)},
        )

    def advance(
        self, job: int, source: State, target: State, now: float, reason: str = "", *, due_at: float | None = None
    ) -> bool:
        """Moves a job from one state to another; False if it was not in `source` (any more).

        reason: "" stands for the table's meaning of the move.  due_at: when it may be worked on, at once if None.
        Raises IllegalTransition for a move that the table does not have.
        """
        meaning = states.check(source, target)
        moved = self.rows(
            """UPDATE jobs SET state = :target, reason = :reason, changed_at = :now, due_at = :due, lease_until = NULL
            WHERE id = :job AND state = :source RETURNING id""",
            {
                "job": job,
                "source": source,
                "target": target,
                "reason": reason or meaning,
                "now": now,
                "due": now if due_at is None else due_at,
            },
        )
        return bool(moved)

    def claim(self, now: float, lease: float, ceiling: int) -> Job | None:
        """Takes the job that has been due longest for reconstruction, for `lease` seconds, at most `ceiling` times."""
        claimed = self.rows(
            """UPDATE jobs SET state = 'reconstructing', reason = :reason, changed_at = :now,
                lease_until = :now + :lease, attempts = attempts + 1
            WHERE id = (SELECT id FROM jobs WHERE state = 'ready' AND due_at <= :now AND attempts < :ceiling
                ORDER BY due_at, id LIMIT 1)
            RETURNING *""",
            {
                "now": now,
                "lease": lease,
                "ceiling": ceiling,
                "reason": states.check(State.READY, State.RECONSTRUCTING),
            },
        )
        return _as_job(claimed[0]) if claimed else None

    def run_again(self, job: Job, now: float) -> bool:
        """A failed or sent job from the beginning, with all its attempts.  False if it has moved meanwhile."""
        with self.transaction():
            moved = self.advance(job.id, job.state, State.READY, now)
            if moved:
                self.forget_attempts(job.id)
        return moved

    def forget_attempts(self, job: int, count: int | None = None) -> None:
        """Takes back `count` attempts that were not the job's fault; all of them if None."""
        self.database.execute(
            "UPDATE jobs SET attempts = MAX(0, attempts - COALESCE(:count, attempts)) WHERE id = :job",
            {"job": job, "count": count},
        )

    def job(self, number: int) -> Job | None:
        found = self.rows("SELECT * FROM jobs WHERE id = :id", {"id": number})
        return _as_job(found[0]) if found else None

    def latest(self, group_key: str) -> Job | None:
        """The last revision of a group's job."""
        found = self.rows(
            "SELECT * FROM jobs WHERE group_key = :key ORDER BY revision DESC LIMIT 1", {"key": group_key}
        )
        return _as_job(found[0]) if found else None

    def jobs(self, *wanted: State, study: str | None = None) -> list[Job]:
        """All jobs, or those in the given states or of one study, oldest first."""
        found = self.rows(
            """SELECT * FROM jobs WHERE (:wanted = '[]' OR state IN (SELECT value FROM json_each(:wanted)))
            AND (:study IS NULL OR study_instance_uid = :study) ORDER BY id""",
            {"wanted": json.dumps(wanted), "study": study},
        )
        return [_as_job(row) for row in found]

    def last_move(self) -> int:
        """The number of the last line of the journal, 0 before there is one."""
        return int(self.rows("SELECT COALESCE(MAX(id), 0) AS last FROM journal")[0]["last"])

    def journal(self, after: int = 0) -> list[Move]:
        """The moves after the given line of the journal."""
        found = self.rows("SELECT * FROM journal WHERE id > :after ORDER BY id", {"after": after})
        return [
            Move(**(row | {"source": row["source"] and State(row["source"]), "target": State(row["target"])}))
            for row in found
        ]

    def _job(self, where: str, values: Mapping[str, Any]) -> Job:
        return _as_job(self.rows(f"SELECT * FROM jobs WHERE {where}", values)[0])


def _sorted(images: Sequence[str]) -> str:
    return json.dumps(sorted(images))


def _as_job(row: Mapping[str, Any]) -> Job:
    return Job(**(dict(row) | {"state": State(row["state"]), "images": tuple(json.loads(row["images"]))}))
