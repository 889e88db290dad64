"""Brings what is due to one destination, image by image, and writes down each answer before the next image goes.

A destination that fails is asked again after growing pauses, for ever; what it turns down for good is kept and shown.
An instance at which it breaks off again and again, while it takes others, is turned down too.
Killed between an answer and its row, the image is sent twice, and the archive knows its UID already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from dicom_node.call import Destination, SendSettings
from dicom_node.cleanup import make_anew
from dicom_node.errors import PeerFailure, Unreachable, UnreadableObject
from dicom_node.outbox import Outbox, Row
from dicom_node.send import Delivery
from dicom_node.settings import Send
from dicom_node.states import State
from dicom_node.store import Store
from dicom_node.surprise import words
from dicom_node.web import WebService

SendFunction = Callable[[Sequence[Path], Any, SendSettings], Iterator[Delivery]]
"""`send` or `stow`; what it calls is a destination of its own kind."""

BREAKS = 8
"""How often a destination may break off at an instance until that is given up; with the default pauses, 20 minutes."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Courier:
    """Delivers to one destination.  stopping: tells that the node wants to end."""

    store: Store
    outbox: Outbox
    destination: Destination | WebService
    pauses: Send
    settings: SendSettings
    send: SendFunction
    jobs_folder: Path
    clock: Callable[[], float]
    stopping: Callable[[], bool]

    def __call__(self) -> None:
        """One round: every job that has something due for this destination, one after the other."""
        done: set[int] = set()
        while rows := self.outbox.next_due(self.destination.name, self.clock(), done):
            if self.stopping():
                return
            job = rows[0].job
            done.add(job)
            if missing := [row for row in rows if not row.path.is_file()]:
                self._make_anew(job, f"{len(missing)} of its files are gone, such as {missing[0].path}")
            else:
                self._send(job, rows)
            self.outbox.settle(self.clock())

    def _send(self, job: int, rows: list[Row]) -> None:
        left = {row.path: row for row in rows}
        try:
            for delivery in self.send(list(left), self.destination, self.settings):
                if len(left) == len(rows):
                    self.outbox.take_up(self.destination.name)
                self._write_down(left.pop(delivery.path), delivery)
                if self.stopping() or not self.outbox.is_sending(job):
                    return
        except Unreachable as error:
            self._put_off(list(left.values()), str(error))
        except PeerFailure as error:
            self._postpone(list(left.values()), str(error))
        except UnreadableObject as error:
            self._make_anew(job, str(error))
        except Exception as error:
            # one job's surprise must not keep the others from this destination
            log.exception("delivery_failed", job=job, destination=self.destination.name)
            self._postpone(list(left.values()), words(error))

    def _write_down(self, row: Row, delivery: Delivery) -> None:
        """The peer's comment may quote a patient: it goes into the row and not into the log."""
        now = self.clock()
        outcome = "pending" if delivery.outcome == "retry" else delivery.outcome
        said = "" if delivery.status is None else f"answered 0x{delivery.status:04X}"
        comment = " ".join(filter(None, (said, delivery.comment)))
        if delivery.broke_off and row.broken_off + 1 >= BREAKS:
            outcome = "refused"
            comment = (
                f"broke off at it {BREAKS} times and took others meanwhile: is it too large, or is it not understood?"
            )
        if delivery.outcome != "stored":
            log.warning(
                "broke_off_at_instance" if delivery.broke_off else f"not_stored_{delivery.outcome}",
                job=row.job,
                destination=row.destination,
                sop_instance_uid=row.sop_instance_uid,
                **({} if delivery.status is None else {"status": f"0x{delivery.status:04X}"}),
            )
        due_at = now if outcome == "stored" else now + self.pauses.pause(row.attempts + 1)
        self.outbox.answered(
            row,
            outcome,
            now,
            status=delivery.status,
            comment=comment,
            due_at=due_at,
            broke_off=delivery.broke_off,
        )

    def _postpone(self, rows: list[Row], reason: str) -> None:
        if not rows:
            return
        now = self.clock()
        pause = self.pauses.pause(max(row.attempts for row in rows) + 1)
        log.warning("postponed", job=rows[0].job, destination=self.destination.name, seconds=pause, reason=reason)
        self.outbox.postpone(rows, now, comment=reason, due_at=now + pause)

    def _put_off(self, rows: list[Row], reason: str) -> None:
        """Other jobs are not to wait for a dead peer's time-outs, one after the other."""
        now = self.clock()
        pause = self.outbox.put_off(self.destination.name, now, self.pauses)
        log.warning("postponed", destination=self.destination.name, seconds=pause, reason=reason)
        self.outbox.postpone(rows, now, comment=reason, due_at=now)

    def _make_anew(self, job: int, reason: str) -> None:
        make_anew(self.store, self.jobs_folder, job, State.SENDING, self.clock(), reason)
