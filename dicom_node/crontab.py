"""Crontab: when a line of it is due (crontab(5)), in the machine's time.

APScheduler 3 reads such a line too, but counts the weekdays from Monday, has no Sunday that is 7, and wants a day of
the month *and* of the week to fit where both are given; in crontab one of them is enough.
"""

from __future__ import annotations

from datetime import datetime

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

_FIELDS = ("minute", "hour", "day", "month", "day_of_week")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Timetable:
    """The times of one line.  Several that went by since it was last asked count as one.

    now: in s since the epoch.  Raises ValueError for what is no line of crontab.
    """

    def __init__(self, line: str, now: float) -> None:
        self._trigger = trigger(line)
        self._asked = now
        self._next = self._after(now)

    def is_due(self, now: float) -> bool:
        """Whether one of its times has come; a date that was set back counts anew."""
        if now < self._asked:
            self._next = self._after(now)
        self._asked = now
        if self._next is None or now < self._next:
            return False
        self._next = self._after(now)
        return True

    def _after(self, now: float) -> float | None:
        moment = datetime.fromtimestamp(now).astimezone()
        found = self._trigger.get_next_fire_time(moment, moment)
        return found.timestamp() if found else None


def trigger(line: str) -> BaseTrigger:
    """Raises ValueError for what is no line of five fields."""
    values = line.lower().split()
    if len(values) != len(_FIELDS):
        raise ValueError(f"it has {len(values)} fields, expected {len(_FIELDS)}: minute, hour, day, month, weekday")
    fields = dict(zip(_FIELDS, values, strict=True))
    any_weekday = fields["day_of_week"].startswith("*")
    fields["day_of_week"] = _weekdays(fields["day_of_week"])
    if any_weekday or fields["day"].startswith("*"):
        return CronTrigger(**fields)
    return OrTrigger([CronTrigger(**fields | {"day": "*"}), CronTrigger(**fields | {"day_of_week": "*"})])


def _weekdays(field: str) -> str:
    """The same days by their names."""
    return ",".join(dict.fromkeys(_DAYS[number % 7] for part in field.split(",") for number in _days(part)))


def _days(part: str) -> range:
    """Of one day, a range, or `*`, each with or without a step; Sunday is 0, and 7 too."""
    days, _, step = part.partition("/")
    first, _, last = ("0-6" if days == "*" else days).partition("-")
    begin, end = _day(first), _day(last or first)
    if end == 0 and last:
        end = 7
    every = int(step) if step else 1
    if begin > end or every < 1:
        raise ValueError(f"{part!r} are no weekdays")
    return range(begin, end + 1, every)


def _day(name: str) -> int:
    if name in _DAYS:
        return _DAYS.index(name)
    if not name.isdecimal() or int(name) > 7:
        raise ValueError(f"{name!r} is no weekday, expected 0 (Sunday) to 7 (Sunday too) or {', '.join(_DAYS)}")
    return int(name)
