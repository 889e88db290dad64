"""Looks by a timetable: every day is looked at by one that came to its end."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.errors import PeerFailure
from dicom_node.lookout import Lookout
from dicom_node.settings import Send
from dicom_node.store import Store

PAUSES = Send(first_pause=100, pause_factor=2, longest_pause=3600)
WORKDAYS_AT_TWO = "0 2 * * 1-5"


class Watch:
    """A lookout, and an archive that may be down."""

    def __init__(self, folder: Path, begin: datetime) -> None:
        self.now = begin.timestamp()
        self.path = folder / "node.db"
        self.down = False
        self.looked: list[tuple[str, date]] = []
        self.start()

    def start(self, schedule: str = WORKDAYS_AT_TWO) -> None:
        """Also: as after a restart."""

        def now() -> float:
            return self.now

        self.look_out = Lookout(Store(self.path), "pacs", schedule, 2, self._look, PAUSES, now, now)

    def _look(self, since: date) -> None:
        self.looked.append((f"{datetime.fromtimestamp(self.now):%a %H:%M}", since))
        if self.down:
            raise PeerFailure("pacs is down")

    def until(self, end: datetime) -> None:
        while self.now < end.timestamp():
            try:
                self.look_out()
            except PeerFailure:
                assert self.down
            self.now += 60


FRIDAY = date(2026, 1, 9)


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path, datetime(2026, 1, 9, 0, 30))


def test_after_a_weekend_friday_is_looked_at(watch: Watch) -> None:
    watch.until(datetime(2026, 1, 10))
    watch.start()
    watch.until(datetime(2026, 1, 14))
    assert watch.looked == [
        ("Fri 02:00", FRIDAY - timedelta(days=2)),
        ("Mon 02:00", FRIDAY),
        ("Tue 02:00", date(2026, 1, 11)),
    ]


def test_a_look_that_fails_is_tried_again_after_growing_pauses_and_misses_no_day(watch: Watch) -> None:
    watch.until(datetime(2026, 1, 10))
    watch.down = True
    watch.until(datetime(2026, 1, 12, 2, 10))
    assert [at for at, _ in watch.looked[1:]] == ["Mon 02:00", "Mon 02:02", "Mon 02:06"]
    watch.start()
    watch.until(datetime(2026, 1, 16))
    watch.down = False
    before = len(watch.looked)
    watch.until(datetime(2026, 1, 18))
    assert watch.looked[before][1] == FRIDAY, "the last look that came to its end was on Friday"
    assert watch.looked[before + 1 :] == [("Fri 02:00", date(2026, 1, 14))], "and then only when it is time to"
