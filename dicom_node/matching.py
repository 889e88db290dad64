"""Attribute matching of C-FIND (PS3.4 C.2.2.2), pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from functools import lru_cache

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

_RANGED = ("DA", "TM", "DT")
_NOT_WILD = ("UI", "DA", "TM", "DT", "IS", "DS", "US", "SS", "UL", "SL", "FD", "FL", "AT")

_LONGEST_PATTERN = 1024
"""Characters; a person's name may have 3 × 64, no other text that can be matched more than 64 (PS3.5 6.2)."""


def matches(query: Dataset, found: Mapping[str, str]) -> bool:
    """Whether every key of the query that has a value fits.  found: keyword to value, several joined by a backslash.

    A key of which nothing is known (not in `found`) fits anything, as PS3.4 C.2.2.1.3 has it for optional keys.
    """
    return all(
        _fits(element, found[element.keyword]) for element in query if element.keyword in found and element.VR != "SQ"
    )


def _fits(element: DataElement, found: str) -> bool:
    wanted = element.value
    if wanted is None or wanted == "":
        return True
    several = list(wanted) if element.VM > 1 else [wanted]
    values = found.split("\\")
    return any(_is_one(str(one), value, element.VR) for one in several for value in values)


def _is_one(wanted: str, found: str, vr: str) -> bool:
    if vr in _RANGED:
        first, hyphen, last = wanted.partition("-")
        if not hyphen:
            return found == wanted
        # "0930" includes all of that minute, "2024" all of that year
        return bool(found) and found >= first and (not last or found[: len(last)] <= last)
    if vr in _NOT_WILD:
        return found.strip() == wanted.strip()
    if len(wanted) > _LONGEST_PATTERN:
        return False
    return _pattern(wanted.strip(), vr == "PN").match(found.strip()) is not None


@lru_cache(maxsize=64)
def _pattern(wanted: str, any_case: bool) -> re.Pattern[str]:
    """`fnmatch` makes patterns that never go back behind a *, so that many of them cost no more than one."""
    return re.compile(fnmatch.translate(wanted.replace("[", "[[]")), re.IGNORECASE if any_case else 0)
