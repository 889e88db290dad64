"""Storage commitment, as those who ask (PS3.4 J): a result is archived when its destination says that it keeps it.

Asked is once all results of a job are stored at a destination.  The answer may come on the same association or on
another, to our listener, minutes or days later; every transaction is a row, so a restart in between loses none.  What
is not held is sent again; what is not answered, or not kept for a reason that passes, is asked again, under another
transaction UID; what is not kept for another reason is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, generate_uid
from pynetdicom import evt
from pynetdicom.presentation import build_context

from dicom_node.call import Destination, SendSettings, associate
from dicom_node.convert.header import MALFORMED
from dicom_node.errors import PeerFailure, UnreadableObject
from dicom_node.outbox import Outbox, Row
from dicom_node.settings import Send
from dicom_node.states import State
from dicom_node.store import Store
from dicom_node.surprise import words

PUSH_MODEL = UID("1.2.840.10008.1.20.1")
WELL_KNOWN_INSTANCE = UID("1.2.840.10008.1.20.1.1")
REQUEST_COMMITMENT = 1
"""The action type (PS3.4 J.3.2)."""
ALL_KEPT, SOME_NOT_KEPT = 1, 2
"""The event types (PS3.4 J.3.3)."""

SUCCESS, NO_SUCH_EVENT_TYPE, INVALID_ARGUMENT = 0x0000, 0x0113, 0x0115
NOT_HELD = 0x0112
"""Failure reason (PS3.3 C.14.1.1): no such object instance."""
NOT_TOLD = 0x0110
"""Processing failure: for a failed reference without a reason."""
PASSING = (NOT_TOLD, 0x0213, 0x0131)
"""Processing failure, resource limitation, duplicate transaction UID: they say nothing of the instance."""

STAY = 3.0
"""Seconds that an association stays open for peers that answer on it at once."""

Report = Callable[[str, str, Collection[str], Mapping[str, int]], bool]
"""(transaction UID, AE title, kept UIDs, reasons of those not kept) -> whether we had asked that."""
Ask = Callable[[str, Sequence[Row], Destination, SendSettings, Report, Callable[[], None], Callable[[], bool]], None]

log = structlog.get_logger(__name__)


class Commitments:
    """What was asked and answered, in the store.  ae_titles: of each destination that is asked, by name."""

    def __init__(
        self, store: Store, outbox: Outbox, ae_titles: Mapping[str, str], pauses: Send, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self.renew(ae_titles, pauses)

    def renew(self, ae_titles: Mapping[str, str], pauses: Send) -> None:
        """The configuration was read anew."""
        self._ae_titles, self._pauses = dict(ae_titles), pauses

    def due(self, destination: str) -> dict[int, list[Row]]:
        """What is to be asked of a destination now, by job: only of jobs of which nothing is left to send to it."""
        found: dict[int, list[Row]] = {}
        for row in self._outbox.rows(
            """SELECT d.* FROM deliveries d JOIN jobs j ON j.id = d.job WHERE j.state IN ('sending', 'sent', 'refused')
            AND d.destination = :destination AND d.outcome = 'stored' AND d.commitment = 'due' AND d.due_at <= :now
            AND NOT EXISTS (SELECT 1 FROM deliveries p
                WHERE p.job = d.job AND p.destination = d.destination AND p.outcome = 'pending')
            ORDER BY d.job, d.path""",
            destination=destination,
            now=self._clock(),
        ):
            found.setdefault(row.job, []).append(row)
        return found

    def begin(self, rows: Sequence[Row]) -> str:
        """A new transaction for the rows of one job and destination; its UID, which is never used again.

        Until the destination has `taken` it, it may never have been asked, by a node that was killed: the next round,
        when nothing of this node's own is under way, gives it up.
        """
        transaction, now = str(generate_uid()), self._clock()
        with self._store.transaction() as database:
            database.execute(
                """INSERT INTO transactions (transaction_uid, job, destination, asked_at, given_up_at)
                VALUES (?, ?, ?, ?, ?)""",
                [transaction, rows[0].job, rows[0].destination, now, now],
            )
            database.execute(
                """UPDATE deliveries SET commitment = 'asked', transaction_uid = :transaction, changed_at = :now
                WHERE job = :job AND destination = :destination AND commitment = 'due'
                AND sop_instance_uid IN (SELECT value FROM json_each(:uids))""",
                {
                    "transaction": transaction,
                    "now": now,
                    "job": rows[0].job,
                    "destination": rows[0].destination,
                    "uids": json.dumps([row.sop_instance_uid for row in rows]),
                },
            )
        return transaction

    def taken(self, transaction: str) -> None:
        """The destination has accepted the request, and has time to answer it."""
        self._store.database.execute(
            "UPDATE transactions SET given_up_at = ? WHERE transaction_uid = ?",
            [self._clock() + self._pauses.commitment_timeout, transaction],
        )

    def answered(self, transaction: str) -> bool:
        """Whether nothing is waited for any more under this UID."""
        found = self._store.rows(
            "SELECT 1 FROM transactions WHERE transaction_uid = :uid AND answered_at IS NULL", {"uid": transaction}
        )
        return not found

    def withdraw(self, transaction: str, comment: str) -> None:
        """It could not be asked, or was not answered: again after a pause, under another UID."""
        now = self._clock()
        with self._store.transaction() as database:
            database.execute(
                "UPDATE transactions SET answered_at = ? WHERE transaction_uid = ? AND answered_at IS NULL",
                [now, transaction],
            )
            self._due_again(transaction, comment)

    def give_up(self, destination: str) -> None:
        """Withdraws what was not taken, or not answered in time.  An answer that comes later still counts for what is
        kept.
        """
        for found in self._store.rows(
            """SELECT * FROM transactions
            WHERE destination = :destination AND answered_at IS NULL AND given_up_at <= :now""",
            {"destination": destination, "now": self._clock()},
        ):
            log.warning("commitment_not_answered", job=found["job"], destination=destination)
            self.withdraw(
                found["transaction_uid"], f"no commitment in {found['given_up_at'] - found['asked_at']:.0f} s"
            )

    def report(self, transaction: str, ae_title: str, kept: Collection[str], failed: Mapping[str, int]) -> bool:
        """Writes down an answer; False for a transaction that we did not begin with the peer of that title."""
        now = self._clock()
        with self._store.transaction() as database:
            found = self._store.rows("SELECT * FROM transactions WHERE transaction_uid = :uid", {"uid": transaction})
            if not found or self._ae_titles.get(found[0]["destination"]) != ae_title:
                return False
            job, destination = found[0]["job"], found[0]["destination"]
            database.execute(
                """UPDATE deliveries SET commitment = 'given', transaction_uid = NULL, comment = '', changed_at = :now
                WHERE job = :job AND destination = :destination AND outcome = 'stored'
                AND commitment IN ('due', 'asked') AND sop_instance_uid IN (SELECT value FROM json_each(:kept))""",
                {"now": now, "job": job, "destination": destination, "kept": json.dumps(sorted(kept))},
            )
            waiting = [row for row in self._outbox.of(job) if row.transaction_uid == transaction]
            for row in waiting:
                self._not_kept(row, transaction, failed.get(row.sop_instance_uid))
            database.execute(
                "UPDATE transactions SET answered_at = COALESCE(answered_at, ?) WHERE transaction_uid = ?",
                [now, transaction],
            )
            if lost := [row for row in waiting if _is_lost(failed.get(row.sop_instance_uid))]:
                reason = f"{destination} does not hold {len(lost)} of what it had stored"
                for state in (State.SENT, State.REFUSED):
                    self._store.advance(job, state, State.SENDING, now, reason)
                self._outbox.settle(now)
            self._outbox.archive(job, now)
        log.info("commitment_reported", job=job, destination=destination, kept=len(kept), not_kept=len(failed))
        return True

    def take_up(self) -> None:
        """For the start: what is under way to a destination that was not asked until now is asked for like the rest."""
        found: dict[tuple[int, str], list[Row]] = {}
        for row in self._outbox.rows(
            """SELECT d.* FROM deliveries d JOIN jobs j ON j.id = d.job WHERE j.state IN ('sending', 'refused')
            AND d.commitment = 'none' AND d.destination IN (SELECT value FROM json_each(:asked))""",
            asked=json.dumps(sorted(self._ae_titles)),
        ):
            found.setdefault((row.job, row.destination), []).append(row)
        for (job, destination), rows in found.items():
            try:
                classes = [row.sop_class_uid or _sop_class(row.path) for row in rows]
            except UnreadableObject as error:
                log.warning("commitment_not_taken_up", job=job, destination=destination, reason=str(error))
                continue
            with self._store.transaction() as database:
                for row, sop_class in zip(rows, classes, strict=True):
                    database.execute(
                        """UPDATE deliveries SET commitment = 'due', sop_class_uid = ?
                        WHERE job = ? AND destination = ? AND sop_instance_uid = ?""",
                        [sop_class, job, destination, row.sop_instance_uid],
                    )

    def _not_kept(self, row: Row, transaction: str, reason: int | None) -> None:
        """reason: why, None where the answer did not name it."""
        if not _is_lost(reason):
            comment = "the answer did not name it" if reason is None else f"not kept yet: 0x{reason:04X}"
            return self._due_again(transaction, comment, row.sop_instance_uid)
        now = self._clock()
        self._store.database.execute(
            """UPDATE deliveries SET outcome = ?, commitment = 'due', transaction_uid = NULL, status = ?, comment = ?,
                due_at = ?, changed_at = ? WHERE job = ? AND destination = ? AND sop_instance_uid = ?""",
            [
                *("pending" if reason == NOT_HELD else "refused", reason, f"not kept: 0x{reason:04X}"),
                *(now + self._pauses.pause(row.attempts), now),
                *(row.job, row.destination, row.sop_instance_uid),
            ],
        )
        return None

    def _due_again(self, transaction: str, comment: str, sop_instance_uid: str | None = None) -> None:
        """All of a transaction, or one instance of it."""
        now = self._clock()
        self._store.database.execute(
            """UPDATE deliveries SET commitment = 'due', transaction_uid = NULL, comment = :comment, changed_at = :now,
                due_at = :now + :pause
            WHERE transaction_uid = :uid AND (:instance IS NULL OR sop_instance_uid = :instance)""",
            {
                "uid": transaction,
                "instance": sop_instance_uid,
                "comment": comment,
                "now": now,
                "pause": self._pause(transaction),
            },
        )

    def _pause(self, transaction: str) -> float:
        """Grows with the number of times that this job's were asked of this destination."""
        [found] = self._store.rows(
            """SELECT COUNT(*) AS times FROM transactions t JOIN transactions this
            ON this.job = t.job AND this.destination = t.destination WHERE this.transaction_uid = :uid""",
            {"uid": transaction},
        )
        return self._pauses.pause(found["times"])


@dataclass(frozen=True)
class Committer:
    """Asks one destination.  stopping: tells that the node wants to end."""

    commitments: Commitments
    destination: Destination
    settings: SendSettings
    ask: Ask
    stopping: Callable[[], bool]

    def __call__(self) -> None:
        """One round: gives up what was not answered, and asks what is due."""
        self.commitments.give_up(self.destination.name)
        for job, rows in self.commitments.due(self.destination.name).items():
            if self.stopping():
                return
            transaction = self.commitments.begin(rows)

            def over(transaction: str = transaction) -> bool:
                return self.stopping() or self.commitments.answered(transaction)

            def taken(transaction: str = transaction) -> None:
                self.commitments.taken(transaction)

            try:
                self.ask(transaction, rows, self.destination, self.settings, self.commitments.report, taken, over)
            except PeerFailure as error:
                log.warning("commitment_not_asked", job=job, destination=self.destination.name, reason=str(error))
                self.commitments.withdraw(transaction, f"commitment cannot be asked: {error}")
            except Exception as error:
                # one job's surprise must not keep the others waiting, nor itself until it is given up
                log.exception("commitment_failed", job=job, destination=self.destination.name)
                self.commitments.withdraw(transaction, words(error))


def ask(
    transaction: str,
    rows: Sequence[Row],
    destination: Destination,
    settings: SendSettings,
    report: Report,
    taken: Callable[[], None],
    over: Callable[[], bool],
) -> None:
    """N-ACTION, which is `taken` when it is accepted; then waits a little for an answer on the same association, until
    `over`.  Raises PeerFailure.
    """
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = [reference(row.sop_class_uid, row.sop_instance_uid) for row in rows]
    handlers = [(evt.EVT_N_EVENT_REPORT, lambda event: take_report(event, destination.ae_title, report))]
    with associate([build_context(PUSH_MODEL)], destination, settings, handlers=handlers) as association:
        try:
            answer, _ = association.send_n_action(request, REQUEST_COMMITMENT, PUSH_MODEL, WELL_KNOWN_INSTANCE)
        except (RuntimeError, ValueError) as error:  # it has just ended, or has no context for it
            raise PeerFailure(f"{destination.words} cannot be asked for storage commitment: {error}") from error
        if "Status" not in answer:
            raise PeerFailure(f"{destination.words} did not answer a request for storage commitment")
        if answer.Status != SUCCESS:
            raise PeerFailure(f"{destination.words} answered a request for storage commitment 0x{answer.Status:04X}")
        taken()
        deadline = time.monotonic() + STAY
        while association.is_established and not over() and time.monotonic() < deadline:
            time.sleep(0.02)


def prune(store: Store, before: float) -> int:
    """Forgets transactions that were answered or given up before a time; how many.

    A report that comes later still is answered as one of a transaction that we did not begin.
    """
    return store.database.execute("DELETE FROM transactions WHERE answered_at < ?", [before]).rowcount


def take_report(event: evt.Event, ae_title: str, report: Report) -> tuple[int, None]:
    """Answers an N-EVENT-REPORT from the peer of that title, on whatever association."""
    if event.event_type not in (ALL_KEPT, SOME_NOT_KEPT):
        return NO_SUCH_EVENT_TYPE, None
    try:
        told = event.event_information
        transaction = str(told.get("TransactionUID", ""))
        kept = {str(item.ReferencedSOPInstanceUID) for item in told.get("ReferencedSOPSequence") or []}
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason", NOT_TOLD))
            for item in told.get("FailedSOPSequence") or []
        }
    except MALFORMED as error:
        log.warning("commitment_report_unreadable", ae_title=ae_title, error=type(error).__name__)
        return INVALID_ARGUMENT, None
    if not report(transaction, ae_title, kept - failed.keys(), failed):
        log.warning("unknown_commitment_reported", ae_title=ae_title)
        return INVALID_ARGUMENT, None
    return SUCCESS, None


def _is_lost(reason: int | None) -> bool:
    """Whether asking again would not help."""
    return reason is not None and reason not in PASSING


def _sop_class(path: Path) -> str:
    """Raises UnreadableObject."""
    try:
        return str(read_file_meta_info(path).MediaStorageSOPClassUID)
    except (OSError, InvalidDicomError, AttributeError, EOFError) as error:
        raise UnreadableObject(f"{path} is no DICOM file with File Meta Information: {error}") from error


def reference(sop_class_uid: str, sop_instance_uid: str, **more: Any) -> Dataset:
    """An item of a Referenced or Failed SOP Sequence."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item
