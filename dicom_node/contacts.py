"""Who called, when last, and with what outcome: kept in the store, so that people can ask after a scanner that fell
silent, and after somebody who is not let in.

The threads of associations only leave word (`take`); the database is written to in a round of its own, so that a slow
disk keeps no peer waiting.  What was left since the last round of a process that is killed is lost: it is no image.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import structlog

from dicom_node.store import Store

MOST_WAITING = 10_000
"""Words left between two rounds; more are only counted among the lost."""
MOST_STRANGERS = 200
"""Rows of callers who were rejected: whoever reaches the port can claim any title."""
MOST_KNOWN = 1000
"""Rows of those who were accepted: without a [[peer]] that is whoever reaches the port, too."""


log = structlog.get_logger(__name__)


class Event(StrEnum):
    OPENED = "opened"
    """An association was accepted."""
    CLOSED = "closed"
    """It has ended, in whatever way."""
    FETCHED = "fetched"
    """One that the node has requested, or its visit to a web service, has ended: nobody has called."""
    REJECTED = "rejected"
    """It was not accepted (A-ASSOCIATE-RJ)."""


@dataclass(frozen=True)
class Transfer:
    """What an association brought of one study.  sop_classes: how many of each.  path: one of the files."""

    sop_classes: Counter[str]
    path: Path


@dataclass(frozen=True)
class Contact:
    """An association, or the end of a visit.  peer: the name in the configuration, "" for nobody known.

    at: seconds since the epoch.  stored, refused: instances, when it is closed; denied: requests without the right to.
    reason: why it was rejected, or anything denied.  transfers: by Study Instance UID.
    """

    event: Event
    peer: str
    calling_ae_title: str
    host: str
    at: float
    reason: str = ""
    stored: int = 0
    refused: int = 0
    denied: int = 0
    transfers: Mapping[str, Transfer] = field(default_factory=dict)


OnContact = Callable[[Contact], None]


@dataclass(frozen=True)
class Caller:
    """A row: what is remembered of one title at one address.  times: associations.  *_at: s since the epoch.

    denied: requests without the right to, the last of them for `reason`; of one who was rejected that is why.
    """

    peer: str
    ae_title: str
    host: str
    accepted: bool
    times: int
    stored: int
    refused: int
    first_at: float
    last_at: float
    reason: str
    denied: int
    denied_at: float | None


class Contacts:
    """Called, it is a round: writes down who called since the last one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[Contact] = deque()
        self._lock = threading.Lock()
        self._lost = self._told_lost = 0

    def take(self, contact: Contact) -> None:
        """Never blocks and never raises: it is called while an association is negotiated."""
        with self._lock:
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(contact)
            else:
                self._lost += 1

    def __call__(self) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting), deque()
            lost, self._told_lost = self._lost - self._told_lost, self._lost
        if lost:
            log.warning("contacts_not_written", contacts=lost, why="they came faster than they were written down")
        if not waiting:
            return
        try:
            self._write(waiting)
        except BaseException:
            with self._lock:
                self._waiting.extendleft(reversed(waiting))
            raise

    @property
    def lost(self) -> int:
        """Words that were left faster than they were written down."""
        return self._lost

    def _write(self, contacts: list[Contact]) -> None:
        with self._store.transaction() as database:
            database.conn.executemany(
                """INSERT INTO callers
                    (peer, ae_title, host, accepted, times, stored, refused, first_at, last_at, reason,
                    denied, denied_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (peer, ae_title, host, accepted) DO UPDATE SET times = times + excluded.times,
                    stored = stored + excluded.stored, refused = refused + excluded.refused,
                    last_at = MAX(last_at, excluded.last_at), reason = COALESCE(NULLIF(excluded.reason, ''), reason),
                    denied = denied + excluded.denied, denied_at = COALESCE(excluded.denied_at, denied_at)""",
                [
                    (
                        *(contact.peer, contact.calling_ae_title, contact.host),
                        contact.event is not Event.REJECTED,
                        *(contact.event is not Event.CLOSED, contact.stored, contact.refused),
                        *(contact.at, contact.at, contact.reason),
                        *(contact.denied, contact.at if contact.denied else None),
                    )
                    for contact in contacts
                ],
            )
            for accepted, most in ((False, MOST_STRANGERS), (True, MOST_KNOWN)):
                database.execute(
                    """DELETE FROM callers WHERE accepted = :accepted AND rowid NOT IN
                        (SELECT rowid FROM callers WHERE accepted = :accepted ORDER BY last_at DESC LIMIT :most)""",
                    {"accepted": accepted, "most": most},
                )


def callers(store: Store) -> list[Caller]:
    """Everybody who called, the latest first."""
    found = store.rows("SELECT * FROM callers ORDER BY last_at DESC")
    return [Caller(**(row | {"accepted": bool(row["accepted"])})) for row in found]
