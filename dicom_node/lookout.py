"""Lookout: looks for new studies in an archive by a timetable, so that none between two looks is missed.

How far back it looks is the days that are configured, or the last look that came to its end, whichever is longer ago:
over a weekend, or while the archive cannot be had, more days go by.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, datetime, timedelta

from dicom_node.crontab import Timetable
from dicom_node.errors import PeerFailure
from dicom_node.settings import Send
from dicom_node.store import Store


class Lookout:
    """Called in rounds by the daemon.

    look: looks for studies of a day and later ones, and raises PeerFailure where it does not come to its end; then it
    is tried again after growing pauses.  clock: ours, for the pauses; today: the machine's, for the days.
    """

    def __init__(
        self,
        store: Store,
        archive: str,
        schedule: str,
        days: int,
        look: Callable[[date], None],
        pauses: Send,
        clock: Callable[[], float],
        today: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._reader = f"look in {archive}"
        self._timetable = Timetable(schedule, today())
        self._days = days
        self._look = look
        self._pauses = pauses
        self._clock = clock
        self._today = today
        self._due_at = float("inf")
        self._failures = 0

    def __call__(self) -> None:
        """Looks if it is time to, or time to try again.  Raises PeerFailure."""
        now = self._today()
        if self._timetable.is_due(now):
            self._due_at = self._clock()
        if self._clock() < self._due_at:
            return
        try:
            self._look(self.since(now))
        except PeerFailure:
            self._failures += 1
            self._due_at = self._clock() + self._pauses.pause(self._failures)
            raise
        self._failures, self._due_at = 0, float("inf")
        self._store.database.execute(
            "INSERT INTO bookmarks (reader, journal) VALUES (?, ?) ON CONFLICT (reader) DO UPDATE SET journal = ?",
            [self._reader, int(now), int(now)],
        )

    def since(self, now: float) -> date:
        """The first day to look at."""
        usual = (datetime.fromtimestamp(now) - timedelta(days=self._days)).date()
        found = self._store.rows("SELECT journal FROM bookmarks WHERE reader = :reader", {"reader": self._reader})
        return min([usual, *(datetime.fromtimestamp(row["journal"]).date() for row in found)])
