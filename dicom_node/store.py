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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlite_utils import Database

from dicom_node import migrations, states
from dicom_node.model import Instance
from dicom_node.states import Priority, State

BUSY_TIMEOUT = 30.0
"""Seconds to wait for another writer; each writes for milliseconds."""

_DESCRIPTION = TypeAdapter(Instance)
_FIELDS = json.dumps(_DESCRIPTION.json_schema(), sort_keys=True)
_SOFTWARE = f"{version('qsm-node')} {hashlib.sha256(_FIELDS.encode()).hexdigest()[:8]}"
"""Rows that were described by anything else are described anew at the next start."""


@dataclass(frozen=True)
class Job:
    """One acquisition on its way.  images: SOP Instance UIDs to reconstruct from, sorted.  Times: s since the epoch.

    recipe: its own, see `reprocess`; "" for the one of the node.  made_with: see `manner`; "" until it is begun.
    """

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
    priority: Priority = Priority.TODAY
    recipe: str = ""
    made_with: str = ""


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
            "digest": instance.digest,
        }
        with self.transaction() as database:
            database.execute(
                "INSERT INTO studies (study_instance_uid) VALUES (:study) ON CONFLICT (study_instance_uid) DO NOTHING",
                values,
            )
            added = database.execute(
                """INSERT INTO instances
                    (sop_instance_uid, study_instance_uid, path, received_at, software, description, digest)
                VALUES (:uid, :study, :path, :at, :software, :description, :digest)
                ON CONFLICT (sop_instance_uid) DO NOTHING""",
                values,
            ).rowcount
            if added:
                database.execute("DELETE FROM objections WHERE path = :path", values)
                self._reopen(database, instance.study_instance_uid)
        return bool(added)

    def describe_anew(self, instance: Instance) -> bool:
        """Replaces the description that another version of this software made.  False if its file has changed since it
        was taken in: the digest of then is kept.
        """
        values = {"uid": instance.sop_instance_uid, "software": _SOFTWARE}
        values["description"] = _DESCRIPTION.dump_json(instance).decode()
        with self.transaction() as database:
            [found] = self.rows(
                """UPDATE instances SET software = :software,
                    description = json_set(:description, '$.digest', digest)
                WHERE sop_instance_uid = :uid RETURNING digest, study_instance_uid""",
                values,
            )
            self._reopen(database, found["study_instance_uid"])
        return bool(found["digest"] == instance.digest)

    def remove_instances(self, paths: Sequence[str]) -> None:
        """Forgets images whose files are gone."""
        with self.transaction() as database:
            for path in paths:
                gone = database.execute("SELECT study_instance_uid FROM instances WHERE path = ?", [path]).fetchone()
                if gone:
                    database.execute("DELETE FROM instances WHERE path = ?", [path])
                    self._reopen(database, gone[0])

    def look_again_at(self, study: str) -> None:
        """Has a study grouped anew, although nothing came to it."""
        self._reopen(self.database, study)

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

    def were_fetched(self, series: Collection[str]) -> bool:
        """Whether one of these series is one that the node brought from an archive, or is about to."""
        found = self.rows(
            """SELECT 1 FROM fetches WHERE (state = 'found' OR (state = 'fetched' AND attempts > 0))
            AND series_instance_uid IN (SELECT value FROM json_each(:series)) LIMIT 1""",
            {"series": json.dumps(sorted(series))},
        )
        return bool(found)

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

    def open_job(
        self,
        group_key: str,
        revision: int,
        study: str,
        images: Sequence[str],
        now: float,
        *,
        priority: Priority = Priority.TODAY,
        recipe: str = "",
        reason: str = "",
    ) -> Job:
        """A new job, waiting.  If another has just made it, that one."""
        came = f"revision {revision}: images came after {revision - 1} was begun" if revision > 1 else "an image came"
        self.database.execute(
            """INSERT INTO jobs (group_key, revision, study_instance_uid, state, reason, images, due_at, created_at,
                changed_at, priority, recipe)
            VALUES (:key, :revision, :study, :state, :reason, :images, :now, :now, :now, :priority, :recipe)
            ON CONFLICT (group_key, revision) DO NOTHING""",
            {
                "key": group_key,
                "revision": revision,
                "study": study,
                "state": states.START,
                "reason": reason or came,
                "images": _sorted(images),
                "now": now,
                "priority": priority,
                "recipe": recipe,
            },
        )
        return self._job("group_key = :key AND revision = :revision", {"key": group_key, "revision": revision})

    def set_images(self, job: Job, images: Sequence[str]) -> None:
        """What a job that has not begun will be made from; how, is open again."""
        self.database.execute(
            "UPDATE jobs SET images = :images, made_with = '' WHERE id = :id AND state = :state",
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

    def line(self, now: float, ceiling: int, most: int) -> list[Job]:
        """Those that stand first in the queue for reconstruction, at most so many."""
        found = self.rows(
            f"""SELECT * FROM jobs WHERE state = 'ready' AND due_at <= :now AND attempts < :ceiling
            ORDER BY {_ORDER} LIMIT :most""",
            {"now": now, "ceiling": ceiling, "most": most},
        )
        return [_as_job(row) for row in found]

    def exhausted(self, ceiling: int) -> list[Job]:
        """Those that are ready and have been begun as often as is allowed."""
        found = self.rows("SELECT * FROM jobs WHERE state = 'ready' AND attempts >= :ceiling", {"ceiling": ceiling})
        return [_as_job(row) for row in found]

    def claim(self, now: float, lease: float, ceiling: int, *, only: int | None = None) -> Job | None:
        """Takes the first in the queue for reconstruction, for `lease` seconds, at most `ceiling` times.

        only: that job or none.
        """
        claimed = self.rows(
            f"""UPDATE jobs SET state = 'reconstructing', reason = :reason, changed_at = :now,
                lease_until = :now + :lease, attempts = attempts + 1
            WHERE id = (SELECT id FROM jobs WHERE state = 'ready' AND due_at <= :now AND attempts < :ceiling
                AND (:only IS NULL OR id = :only) ORDER BY {_ORDER} LIMIT 1)
            RETURNING *""",
            {
                "now": now,
                "lease": lease,
                "ceiling": ceiling,
                "only": only,
                "reason": states.check(State.READY, State.RECONSTRUCTING),
            },
        )
        return _as_job(claimed[0]) if claimed else None

    def explain(self, job: int, state: State, reason: str) -> None:
        """Why a job stays where it is.  No move, and no line of the journal."""
        self.database.execute(
            "UPDATE jobs SET reason = :reason WHERE id = :job AND state = :state AND reason <> :reason",
            {"job": job, "state": state, "reason": reason},
        )

    def put(self, job: int, priority: Priority) -> bool:
        """Moves a job to another place in the queue; False if it has that priority already."""
        changed = self.database.execute(
            "UPDATE jobs SET priority = :priority WHERE id = :job AND priority <> :priority",
            {"job": job, "priority": priority},
        )
        return bool(changed.rowcount)

    def run_again(self, job: Job, now: float, reason: str = "") -> bool:
        """A failed or sent job from the beginning, with all its attempts.  False if it has moved meanwhile.

        It is made as it was before if any of it is delivered, else as the node is configured now.
        """
        with self.transaction():
            moved = self.advance(job.id, job.state, State.READY, now, reason)
            if moved:
                self.forget_attempts(job.id)
                self._forget_manner(job.id)
        return moved

    def take_up(self, job: Job, now: float, reason: str = "") -> bool:
        """A cancelled job again, with all its attempts.  False if it has moved meanwhile.

        Its images may have changed: the grouping looks at them anew, but for a job that it has no more to do with.
        """
        with self.transaction():
            if not self.advance(job.id, State.CANCELLED, State.WAITING, now, reason):
                return False
            self.forget_attempts(job.id)
            self._forget_manner(job.id)
            newest = self.latest(job.group_key)
            if job.recipe or newest is None or newest.id != job.id:
                self.advance(job.id, State.WAITING, State.READY, now, reason)
            else:
                self.look_again_at(job.study_instance_uid)
        return True

    def keep_manner(self, job: int, written: str) -> None:
        """How a job is made from now on, whatever the configuration becomes."""
        self.database.execute("UPDATE jobs SET made_with = ? WHERE id = ?", [written, job])

    def _forget_manner(self, job: int) -> None:
        """Somebody asks for it anew, perhaps because it went wrong in this manner."""
        self.database.execute(
            """UPDATE jobs SET made_with = '' WHERE id = :job
            AND NOT EXISTS (SELECT 1 FROM deliveries WHERE job = :job AND outcome = 'stored')""",
            {"job": job},
        )

    def hasten(self, now: float, longest: float) -> None:
        """For a start, and a configuration that was read anew: perhaps a peer was mended, there or here.

        What waits for one is due, and pauses grow from the first again.  A series that came in part keeps its pause, as
        it is asked for only so often.  longest: s; all else that waits for longer was put off by a clock that was
        ahead, and is due too.
        """
        with self.transaction() as database:
            database.execute("DELETE FROM pauses")
            for table in ("deliveries", "pledges"):
                database.execute(f"UPDATE {table} SET due_at = :now WHERE due_at > :now", {"now": now})
            database.execute("UPDATE fetches SET due_at = :now WHERE due_at > :now AND attempts = 0", {"now": now})
            for table in ("jobs", "fetches"):
                database.execute(f"UPDATE {table} SET due_at = ? WHERE due_at > ?", [now, now + longest])
            database.execute("UPDATE transactions SET given_up_at = ? WHERE given_up_at > ?", [now, now + longest])

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

    def reprocessed_before(self, job: Job) -> int:
        """How many jobs were made of the same acquisition by recipes of their own before this one."""
        [found] = self.rows(
            """SELECT COUNT(*) AS count FROM jobs WHERE id < :id AND recipe <> ''
            AND substr(group_key, 1, :length) = :base""",
            {"id": job.id, "base": f"{base_key(job)}/", "length": len(base_key(job)) + 1},
        )
        return int(found["count"])

    def of_revision(self, group_key: str, revision: int) -> Job | None:
        found = self.rows(
            "SELECT * FROM jobs WHERE group_key = :key AND revision = :revision",
            {"key": group_key, "revision": revision},
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
        return _as_moves(self.rows("SELECT * FROM journal WHERE id > :after ORDER BY id", {"after": after}))

    def journal_of(self, job: int) -> list[Move]:
        """All moves of one job, oldest first."""
        return _as_moves(self.rows("SELECT * FROM journal WHERE job = :job ORDER BY id", {"job": job}))

    def _job(self, where: str, values: Mapping[str, Any]) -> Job:
        return _as_job(self.rows(f"SELECT * FROM jobs WHERE {where}", values)[0])


def base_key(job: Job) -> str:
    """The key of the group whose images a job is made from; one with a recipe of its own has that in its key too."""
    return job.group_key.partition("/")[0]


_ORDER = "priority, due_at, id"
"""Of the queue."""


def _sorted(images: Sequence[str]) -> str:
    return json.dumps(sorted(images))


def _as_job(row: Mapping[str, Any]) -> Job:
    made = {"state": State(row["state"]), "images": tuple(json.loads(row["images"]))}
    return Job(**(dict(row) | made | {"priority": Priority(row["priority"])}))


def _as_moves(rows: Sequence[Mapping[str, Any]]) -> list[Move]:
    made = ({"source": row["source"] and State(row["source"]), "target": State(row["target"])} for row in rows)
    return [Move(**(dict(row) | more)) for row, more in zip(rows, made, strict=True)]
