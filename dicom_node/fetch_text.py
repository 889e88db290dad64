"""What `qsm-node fetch` tells people.  Nothing here says who a patient is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dicom_node.fetch import Fetch
from dicom_node.seek import Candidate
from dicom_node.status import age


def found_in_words(found: Sequence[Candidate]) -> str:
    """Study by study, each series with what speaks against it."""
    lines = []
    study = ""
    for one in found:
        if one.study_instance_uid != study:
            study = one.study_instance_uid
            lines.append(f"study {study} of {one.study_date or 'no date'}")
        verdict = f"left: {one.against}" if one.against else "fetch"
        lines.append(f"  series {one.number or '?':>5}  {one.images:5} images  {one.description[:32]:32}  {verdict}")
    good = sum(not one.against for one in found)
    return "\n".join([*lines, f"{len(found)} series found, {good} of them to be fetched"])


def listed_in_words(fetches: Sequence[Fetch], now: float) -> str:
    """A line for each series, and how many there are of each state."""
    lines = [
        f"{fetch.state:8} {age(now - fetch.changed_at):>7} ago  {fetch.peer}  study {fetch.study_instance_uid}  "
        f"series {fetch.series_instance_uid}  {fetch.images} images{': ' if fetch.reason else ''}{fetch.reason}"
        for fetch in fetches
    ]
    counts = Counter(fetch.state for fetch in fetches)
    told = ", ".join(f"{counts[state]} {state}" for state in ("found", "fetched", "done", "refused"))
    return "\n".join([*lines, told])
