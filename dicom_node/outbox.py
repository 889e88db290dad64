"""What is still to be sent: one row for each result instance and destination, so that a half-sent series goes on.

A row is pending until the destination has stored the instance or turned it down for good.  A dead destination holds
nothing up but its own rows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.settings import Send
from dicom_node.states import State
from dicom_node.store import Job, Store

SENDABLE = frozenset({State.SENDING, State.SENT, State.REFUSED, State.ARCHIVED})
"""Jobs in these states have rows, and results that can be sent again."""


@dataclass(frozen=True)
class Result:
    """An instance that a job made."""

    sop_instance_uid: str
    path: Path
    sop_class_uid: str = ""


@dataclass(frozen=True)
class Row:
    """One result on its way to one destination.  status: the peer's last answer (PS3.7 C), None if there is none.

    commitment: none (not asked of this destination), due, asked (under transaction_uid) or given.
    broken_off: how often the destination broke off at this instance, while it took others.
    """

    job: int
    destination: str
    sop_instance_uid: str
    path: Path
    outcome: str
    attempts: int
    due_at: float
    status: int | None
    comment: str
    changed_at: float
    sop_class_uid: str = ""
    commitment: str = "none"
    transaction_uid: str | None = None
    broken_off: int = 0


class Outbox:
    """The deliveries in the store.  committing: the destinations that are asked to commit themselves."""

    def __init__(self, store: Store, committing: frozenset[str] = frozenset()) -> None:
        self._store = store
        self.renew(committing)

    def renew(self, committing: frozenset[str]) -> None:
        """The configuration was read anew."""
        self._committing = committing

    def register(self, job: Job, results: Sequence[Result], destinations: Sequence[str], now: float) -> bool:
        """Makes the rows of a reconstructed job and moves it to sending, both or neither.

        Rows of an earlier run of the same job are replaced, as its files are gone, but for what a destination has
        stored under the same UID, which is not sent again; a job that was still to go somewhere goes nowhere else.
        Its attempts are forgotten: they led to a result, and should that get lost the job begins anew.
        """
        before = self.of(job.id)
        known = {row.destination for row in before} & set(destinations)
        if known and any(row.outcome == "pending" for row in before):
            destinations = [name for name in destinations if name in known]
        made = json.dumps([result.sop_instance_uid for result in results])
        with self._store.transaction() as database:
            if not self._store.advance(job.id, State.RECONSTRUCTED, State.SENDING, now):
                return False
            self._store.forget_attempts(job.id)
            database.execute(
                """DELETE FROM deliveries WHERE job = ? AND
                    (outcome <> 'stored' OR sop_instance_uid NOT IN (SELECT value FROM json_each(?)))""",
                [job.id, made],
            )
            database.conn.executemany(
                "UPDATE deliveries SET path = ? WHERE job = ? AND sop_instance_uid = ?",
                [(str(result.path), job.id, result.sop_instance_uid) for result in results],
            )
            database.conn.executemany(
                """INSERT INTO deliveries (job, destination, sop_instance_uid, path, due_at, changed_at, sop_class_uid,
                    commitment) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (job, destination, sop_instance_uid) DO NOTHING""",
                [
                    (
                        *(job.id, destination, result.sop_instance_uid, str(result.path), now, now),
                        *(result.sop_class_uid, "due" if destination in self._committing else "none"),
                    )
                    for destination in destinations
                    for result in results
                ],
            )
            self._call_soon(job.id, now)
        return True

    def next_due(self, destination: str, now: float, but_not: Collection[int] = ()) -> list[Row]:
        """What of one job may be sent to a destination now; nothing if there is no such job, or the destination pauses.

        The job is the first in the order of the queue: today's patient waits for no cohort.
        """
        values = {"destination": destination, "now": now, "but_not": json.dumps(sorted(but_not))}
        if not self._store.rows(
            """SELECT 1 FROM deliveries WHERE destination = :destination AND outcome = 'pending' AND due_at <= :now
            AND NOT EXISTS (SELECT 1 FROM pauses WHERE destination = :destination AND due_at > :now) LIMIT 1""",
            values,
        ):
            return []
        # The signs keep SQLite to the rows of the job: what is due may be all of a cohort, and is not looked through.
        found = self._store.rows(
            """SELECT j.id FROM jobs j WHERE j.state = 'sending' AND j.id NOT IN (SELECT value FROM json_each(:but_not))
            AND EXISTS (SELECT 1 FROM deliveries d WHERE d.job = j.id AND d.destination = :destination
                AND +d.outcome = 'pending' AND +d.due_at <= :now)
            ORDER BY j.priority, j.id LIMIT 1""",
            values,
        )
        if not found:
            return []
        return self.rows(
            """SELECT * FROM deliveries WHERE job = :job AND destination = :destination AND +outcome = 'pending'
            AND +due_at <= :now ORDER BY path""",
            job=found[0]["id"],
            destination=destination,
            now=now,
        )

    def is_sending(self, job: int) -> bool:
        """Whether a job is still to be sent: somebody may have cancelled it."""
        return bool(self._store.rows("SELECT 1 FROM jobs WHERE id = :job AND state = 'sending'", {"job": job}))

    def has_delivered(self, job: int) -> bool:
        """Whether a destination holds a result of a job."""
        found = self._store.rows(
            "SELECT 1 FROM deliveries WHERE job = :job AND outcome = 'stored' LIMIT 1", {"job": job}
        )
        return bool(found)

    def answered(
        self,
        row: Row,
        outcome: str,
        now: float,
        *,
        status: int | None,
        comment: str,
        due_at: float,
        broke_off: bool = False,
    ) -> None:
        """Writes down what the peer said: stored, refused, or pending (again at `due_at`).

        status: None where it said nothing.  broke_off: whether it did so at this instance.
        """
        self._store.database.execute(
            """UPDATE deliveries SET outcome = :outcome, attempts = attempts + 1, status = :status, comment = :comment,
                due_at = :due, changed_at = :now, broken_off = broken_off + :broke_off
            WHERE job = :job AND destination = :destination AND sop_instance_uid = :uid AND outcome = 'pending'""",
            {
                "outcome": outcome,
                "status": status,
                "comment": comment,
                "due": due_at,
                "now": now,
                "broke_off": broke_off,
                "job": row.job,
                "destination": row.destination,
                "uid": row.sop_instance_uid,
            },
        )

    def postpone(self, rows: Sequence[Row], now: float, *, comment: str, due_at: float) -> None:
        """The peer broke off before these: all of them again at `due_at`."""
        with self._store.transaction() as database:
            for row in rows:
                database.execute(
                    """UPDATE deliveries SET attempts = attempts + 1, status = NULL, comment = ?, due_at = ?,
                        changed_at = ?
                    WHERE job = ? AND destination = ? AND sop_instance_uid = ? AND outcome = 'pending'""",
                    [comment, due_at, now, row.job, row.destination, row.sop_instance_uid],
                )

    def put_off(self, destination: str, now: float, pauses: Send) -> float:
        """The peer cannot be had: nothing of any job goes to it for a time, which is returned, in s, and grows."""
        with self._store.transaction() as database:
            [found] = self._store.rows(
                "SELECT COALESCE(MAX(attempts), 0) AS attempts FROM pauses WHERE destination = :destination",
                {"destination": destination},
            )
            pause = pauses.pause(found["attempts"] + 1)
            database.execute(
                """INSERT INTO pauses (destination, attempts, due_at) VALUES (?, ?, ?)
                ON CONFLICT (destination) DO UPDATE SET attempts = excluded.attempts, due_at = excluded.due_at""",
                [destination, found["attempts"] + 1, now + pause],
            )
        return pause

    def take_up(self, destination: str) -> None:
        """The peer answers again."""
        if self._store.rows("SELECT 1 FROM pauses WHERE destination = :name", {"name": destination}):
            self._store.database.execute("DELETE FROM pauses WHERE destination = ?", [destination])

    def _call_soon(self, job: int, now: float) -> None:
        """Somebody waits for this job: the destinations that cannot be had are tried once more."""
        self._store.database.execute(
            """UPDATE pauses SET due_at = MIN(due_at, :now) WHERE destination IN
                (SELECT destination FROM deliveries WHERE job = :job AND outcome = 'pending')""",
            {"job": job, "now": now},
        )

    def settle(self, now: float) -> None:
        """Moves on every sending job that has nothing left to send.

        In one transaction each, as what was stored may be asked for again meanwhile.  The reason is told in the log: of
        a refusal it has the status, not the peer's words, which may quote a patient.
        """
        over = """j.state = 'sending' AND NOT EXISTS
            (SELECT 1 FROM deliveries d WHERE d.job = j.id AND +d.outcome = 'pending')"""
        for job in self._store.rows(f"SELECT j.id FROM jobs j WHERE {over}"):
            with self._store.transaction():
                for found in self._store.rows(
                    f"""SELECT j.id, COUNT(d.job) AS total, TOTAL(d.outcome = 'refused') AS refused,
                        MIN(d.destination || ': ' || IIF(d.status IS NULL, d.comment,
                            printf('answered 0x%04X', d.status))) FILTER (WHERE d.outcome = 'refused') AS example
                    FROM jobs j LEFT JOIN deliveries d ON d.job = j.id WHERE j.id = :id AND {over} GROUP BY j.id""",
                    job,
                ):
                    self._end(found, now)

    def _end(self, found: Mapping[str, Any], now: float) -> None:
        if found["refused"]:
            reason = f"{found['refused']:.0f} of {found['total']} turned down, such as by {found['example']}"
            self._store.advance(found["id"], State.SENDING, State.REFUSED, now, reason)
        else:
            self._store.advance(found["id"], State.SENDING, State.SENT, now)
            self.archive(found["id"], now)

    def archive(self, job: int, now: float) -> bool:
        """Moves a sent job on to archived, if every destination that is asked for it has committed itself."""
        [found] = self._store.rows(
            """SELECT TOTAL(commitment = 'given') AS given, TOTAL(commitment IN ('due', 'asked')) AS open
            FROM deliveries WHERE job = :job""",
            {"job": job},
        )
        is_kept = bool(found["given"] and not found["open"])
        return is_kept and self._store.advance(job, State.SENT, State.ARCHIVED, now)

    def refuse_unknown(self, destinations: Sequence[str], now: float) -> None:
        """Destinations that are no longer configured will never answer."""
        self._store.database.execute(
            """UPDATE deliveries SET outcome = 'refused', status = NULL,
                comment = 'this destination is no longer configured', changed_at = :now
            WHERE outcome = 'pending' AND destination NOT IN (SELECT value FROM json_each(:known))""",
            {"known": json.dumps(list(destinations)), "now": now},
        )

    def ask_no_more(self, now: float) -> None:
        """Destinations that are no longer asked for commitment will never give it, and keep no job from its end."""
        with self._store.transaction():
            changed = self._store.rows(
                """UPDATE deliveries SET commitment = 'none', transaction_uid = NULL, changed_at = :now
                WHERE commitment IN ('due', 'asked') AND destination NOT IN (SELECT value FROM json_each(:known))
                RETURNING job""",
                {"known": json.dumps(sorted(self._committing)), "now": now},
            )
            for job in sorted({row["job"] for row in changed}):
                self.archive(job, now)

    def again(self, job: int, now: float, reason: str = "") -> bool:
        """Sends what was turned down once more."""
        with self._store.transaction() as database:
            if not self._store.advance(job, State.REFUSED, State.SENDING, now, reason):
                return False
            database.execute(
                """UPDATE deliveries SET outcome = 'pending', attempts = 0, broken_off = 0, due_at = ?
                WHERE job = ? AND outcome = 'refused'""",
                [now, job],
            )
            self._call_soon(job, now)
        return True

    def resend(self, job: int, destinations: Sequence[str], now: float, reason: str = "") -> int:
        """Sends all results of a job to these destinations, once more or for the first time; how many results.

        0 if the job is where nothing of it can be sent.  A destination that is asked for commitment is asked anew.
        """
        with self._store.transaction() as database:
            found = self._store.job(job)
            if found is None or found.state not in SENDABLE:
                return 0
            if found.state is not State.SENDING:
                self._store.advance(job, found.state, State.SENDING, now, reason)
            known = self._store.rows(
                """SELECT sop_instance_uid AS uid, MIN(path) AS path, MAX(sop_class_uid) AS class FROM deliveries
                WHERE job = :job GROUP BY sop_instance_uid""",
                {"job": job},
            )
            for destination in destinations:
                commitment = "due" if destination in self._committing else "none"
                database.conn.executemany(
                    """INSERT INTO deliveries (job, destination, sop_instance_uid, path, due_at, changed_at,
                        sop_class_uid, commitment)
                    VALUES (:job, :destination, :uid, :path, :now, :now, :class, :commitment)
                    ON CONFLICT (job, destination, sop_instance_uid) DO UPDATE SET outcome = 'pending', attempts = 0,
                        due_at = :now, status = NULL, comment = '', changed_at = :now, commitment = :commitment,
                        transaction_uid = NULL, broken_off = 0""",
                    [
                        row | {"job": job, "destination": destination, "now": now, "commitment": commitment}
                        for row in known
                    ],
                )
            self._call_soon(job, now)
        return len(known)

    def hurry(self, job: int, now: float) -> int:
        """Ends the pause of what is pending; how many rows."""
        with self._store.transaction() as database:
            self._call_soon(job, now)
            return database.execute(
                "UPDATE deliveries SET due_at = ? WHERE job = ? AND outcome = 'pending'", [now, job]
            ).rowcount

    def of(self, job: int) -> list[Row]:
        return self.rows("SELECT * FROM deliveries WHERE job = :job ORDER BY destination, path", job=job)

    def rows(self, sql: str, **values: Any) -> list[Row]:
        """What a SELECT of whole deliveries finds."""
        return [Row(**(row | {"path": Path(row["path"])})) for row in self._store.rows(sql, values)]
