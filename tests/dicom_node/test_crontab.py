"""When a line of crontab is due."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from dicom_node.crontab import Timetable, trigger


def due(line: str, days: int = 31) -> list[datetime]:
    """From Monday, 1 January 2024, on."""
    found: list[datetime] = []
    when = trigger(line)
    now = datetime(2024, 1, 1).astimezone()
    end = now + timedelta(days=days)
    while (moment := when.get_next_fire_time(found[-1] if found else None, now)) and moment < end:
        found.append(moment)
        now = moment + timedelta(seconds=1)
    return found


def weekdays(line: str) -> set[str]:
    return {f"{moment:%a}" for moment in due(line)}


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("0", {"Sun"}),
        ("7", {"Sun"}),
        ("1", {"Mon"}),
        ("1-5", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("5-7", {"Fri", "Sat", "Sun"}),
        ("6,0", {"Sat", "Sun"}),
        ("1-5/2", {"Mon", "Wed", "Fri"}),
        ("*/3", {"Sun", "Wed", "Sat"}),
        ("Fri-Sun", {"Fri", "Sat", "Sun"}),
        ("mon", {"Mon"}),
        ("*", {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}),
    ],
)
def test_weekdays_are_counted_from_sunday(field: str, days: set[str]) -> None:
    assert weekdays(f"0 2 * * {field}") == days


def test_a_day_of_the_month_or_of_the_week_is_enough() -> None:
    found = due("30 2 13 * 1")
    assert [moment.day for moment in found] == [1, 8, 13, 15, 22, 29]
    assert {(moment.hour, moment.minute) for moment in found} == {(2, 30)}


def test_the_other_fields() -> None:
    found = due("*/15 22-23 1,2 1 *", days=366)
    assert len(found) == 16
    assert [later - earlier for earlier, later in pairwise(found)].count(timedelta(minutes=15)) == 14


@pytest.mark.parametrize("line", ["", "0 2 * *", "0 2 * * 8", "0 2 * * x", "0 2 * * 5-3", "0 2 * * 1/0", "61 2 * * *"])
def test_what_is_no_line_of_crontab(line: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        trigger(line)


def test_times_that_went_by_count_as_one() -> None:
    begin = datetime(2024, 1, 1, 1, 30).timestamp()
    timetable = Timetable("0 2 * * *", begin)
    assert not timetable.is_due(begin)
    assert not timetable.is_due(begin + 1799)
    assert timetable.is_due(begin + 1800)
    assert not timetable.is_due(begin + 1800), "once for each time"
    assert timetable.is_due(begin + 1800 + 5 * 86400), "the node was away for days"
    assert not timetable.is_due(begin + 1800 + 5 * 86400 + 3600)
    assert timetable.is_due(begin + 1800 + 6 * 86400)


def test_a_date_that_was_set_back_misses_no_night() -> None:
    begin = datetime(2024, 1, 3, 1, 30).timestamp()
    timetable = Timetable("0 2 * * *", begin)
    assert timetable.is_due(begin + 1800)
    assert not timetable.is_due(begin - 2 * 86400)
    assert timetable.is_due(begin - 2 * 86400 + 1800)
