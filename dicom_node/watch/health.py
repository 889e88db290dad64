"""Whether the node can do what it is there for, for monitors and for systemd: a few checks, each with what was found.

live     callers are looked for, and the rounds that move every job go round: if not, only a new start helps
ready    besides, images are taken: the database can be written to, and the disk has room

What only a destination or a person can mend (an archive that is down, a job in review) is no matter of health: it is
told on the page, by metrics and by notifications.  Only an audit repository that is away for long counts: nobody misses
its messages until they are asked for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node import survey
from dicom_node.index import Reading
from dicom_node.trail import Standing
from dicom_node.watch.pulse import Pulse

FAILURES_IN_A_ROW = 5
DATABASE_PATIENCE = 2.0
"""Seconds that a check waits for the write lock."""


@dataclass(frozen=True)
class Check:
    """found: in words, without any name."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True)
class Health:
    """trouble: why the line is not alive, "" where it is.  enough: bytes that must be free for images to be taken.

    audit: how the trail fares, None where there is none.  reading: how far a start has come with the spool.
    """

    pulse: Pulse
    trouble: Callable[[], str]
    database: Path
    state_folder: Path
    enough: int
    audit: Callable[[], Standing | None] = lambda: None
    reading: Callable[[], Reading] = lambda: Reading(0)

    def live(self) -> list[Check]:
        trouble = self.trouble()
        return [Check("line", not trouble, trouble or "alive"), self._rounds()]

    def ready(self) -> list[Check]:
        return [*self.live(), self._database(), self._disk(), *self._spool(), *self._audit()]

    def _rounds(self) -> Check:
        troubles = list(self._troubles())
        return Check("rounds", not troubles, "; ".join(troubles) or "they go round")

    def _troubles(self) -> Iterator[str]:
        for part, beat in sorted(self.pulse.beats().items()):
            if beat.in_a_row >= FAILURES_IN_A_ROW:
                yield f"{beat.in_a_row} rounds of {part} failed in a row ({beat.trouble}); the log says why"

    def _database(self) -> Check:
        """A row is written and taken back: a file that is read-only, locked or broken says so."""
        try:
            with closing(sqlite3.connect(self.database, timeout=DATABASE_PATIENCE, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO bookmarks (reader, journal) VALUES ('health', 0)")
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            return Check("database", False, f"cannot be written to: {error}")
        return Check("database", True, "can be written to")

    def _disk(self) -> Check:
        try:
            free = survey.disk(self.state_folder).free
        except OSError as error:
            return Check("disk", False, f"cannot be asked: {error.strerror}")
        return Check(
            "disk", free > self.enough, f"{free / 2**30:.1f} GiB free, {self.enough / 2**30:.1f} GiB are needed"
        )

    def _spool(self) -> Iterator[Check]:
        reading = self.reading()
        if reading.left:
            found = f"{reading.left} files are still to be read, and jobs wait for them"
            yield Check("spool", not reading.trouble, f"{found}: {reading.trouble}" if reading.trouble else found)

    def _audit(self) -> Iterator[Check]:
        standing = self.audit()
        if standing is not None:
            count = f"{standing.queued} messages wait, {standing.lost} were lost"
            yield Check("audit", not standing.trouble, f"{standing.trouble}; {count}" if standing.trouble else count)


def as_data(checks: list[Check]) -> dict[str, Any]:
    """For JSON."""
    return {
        "status": "ok" if all(check.ok for check in checks) else "failing",
        "checks": {check.name: {"ok": check.ok, "found": check.found} for check in checks},
    }
