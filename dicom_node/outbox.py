"""What is still to be sent: one row for each result instance and destination, so that a half-sent series goes on.

A row is pending until the destination has stored the instance or turned it down for good.  A dead destination holds
nothing up but its own rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.states import State
from dicom_node.store import Job, Store


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


class Outbox:
    """The deliveries in the store.  committing: the destinations that are asked to commit themselves."""

    def __init__(self, store: Store, committing: frozenset[str] = frozenset()) -> None:
        self._store = store
        self._committing = committing

    def register(self, job: Job, results: Sequence[Result], destinations: Sequence[str], now: float) -> bool:
        """Makes the rows of a reconstructed job and moves it to sending, both or neither.

        Rows of an earlier run of the same job are replaced: its files are gone.  Its attempts are forgotten: they led
        to a result, and should that get lost the job begins anew.
        """
        with self._store.transaction() as database:
            if not self._store.advance(job.id, State.RECONSTRUCTED, State.SENDING, now):
                return False
            self._store.forget_attempts(job.id)
            database.execute("DELETE FROM deliveries WHERE job = ?", [job.id])
            database.conn.executemany(
                """INSERT INTO deliveries (job, destination, sop_instance_uid, path, due_at, changed_at, sop_class_uid,
                    commitment) VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
                [
                    (
                        *(job.id, destination, result.sop_instance_uid, str(result.path), now, now),
                        *(result.sop_class_uid, "due" if destination in self._committing else "none"),
                    )
                    for destination in destinations
                    for result in results
                ],
            )
        return True

    def due(self, destination: str, now: float) -> dict[int, list[Row]]:
        """What may be sent to a destination now, by job, oldest job first."""
        found: dict[int, list[Row]] = {}
        for row in self.rows(
            """SELECT d.* FROM deliveries d JOIN jobs j ON j.id = d.job WHERE j.state = 'sending'
            AND d.destination = :destination AND d.outcome = 'pending' AND d.due_at <= :now ORDER BY d.job, d.path""",
            destination=destination,
            now=now,
        ):
            found.setdefault(row.job, []).append(row)
        return found

    def answered(self, row: Row, outcome: str, now: float, *, status: int, comment: str, due_at: float) -> None:
        """Writes down what the peer said: stored, refused, or pending (again at `due_at`)."""
        self._store.database.execute(
            """UPDATE deliveries SET outcome = :outcome, attempts = attempts + 1, status = :status, comment = :comment,
                due_at = :due, changed_at = :now
            WHERE job = :job AND destination = :destination AND sop_instance_uid = :uid AND outcome = 'pending'""",
            {
                "outcome": outcome,
                "status": status,
                "comment": comment,
                "due": due_at,
                "now": now,
                "job": row.job,
                "destination": row.destination,
                "uid": row.sop_instance_uid,
            },
        )

    def postpone(self, rows: Sequence[Row], now: float, *, comment: str, due_at: float) -> None:
        """The peer could not be asked: all of these again at `due_at`."""
        with self._store.transaction() as database:
            for row in rows:
                database.execute(
                    """UPDATE deliveries SET attempts = attempts + 1, comment = ?, due_at = ?, changed_at = ?
                    WHERE job = ? AND destination = ? AND sop_instance_uid = ? AND outcome = 'pending'""",
                    [comment, due_at, now, row.job, row.destination, row.sop_instance_uid],
                )

    def settle(self, now: float) -> None:
        """Moves on every sending job that has nothing left to send.

        The reason is told in the log: of a refusal it has the status, not the peer's words, which may quote a patient.
        """
        for found in self._store.rows(
            """SELECT j.id, COUNT(d.job) AS total, TOTAL(d.outcome = 'refused') AS refused,
                MIN(d.destination || ': ' || IIF(d.status IS NULL, d.comment, printf('answered 0x%04X', d.status)))
                    FILTER (WHERE d.outcome = 'refused') AS example
            FROM jobs j LEFT JOIN deliveries d ON d.job = j.id WHERE j.state = 'sending'
            GROUP BY j.id HAVING TOTAL(d.outcome = 'pending') = 0"""
        ):
            if found["refused"]:
                reason = f"{found['refused']:.0f} of {found['total']} turned down, such as by {found['example']}"
                self._store.advance(found["id"], State.SENDING, State.REFUSED, now, reason)
            else:
                with self._store.transaction():
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

    def again(self, job: int, now: float) -> bool:
        """Sends what was turned down once more."""
        with self._store.transaction() as database:
            if not self._store.advance(job, State.REFUSED, State.SENDING, now):
                return False
            database.execute(
                """UPDATE deliveries SET outcome = 'pending', attempts = 0, due_at = ?
                WHERE job = ? AND outcome = 'refused'""",
                [now, job],
            )
        return True

    def hurry(self, job: int, now: float) -> int:
        """Ends the pause of what is pending; how many rows."""
        return self._store.database.execute(
            "UPDATE deliveries SET due_at = ? WHERE job = ? AND outcome = 'pending'", [now, job]
        ).rowcount

    def of(self, job: int) -> list[Row]:
        return self.rows("SELECT * FROM deliveries WHERE job = :job ORDER BY destination, path", job=job)

    def rows(self, sql: str, **values: Any) -> list[Row]:
        """What a SELECT of whole deliveries finds."""
        return [Row(**(row | {"path": Path(row["path"])})) for row in self._store.rows(sql, values)]
