"""What `qsm-node fetch` tells people.  Nothing here says who a patient is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from dicom_node.fetches import Fetch
from dicom_node.seek import Candidate
from dicom_node.states import FETCHES
from dicom_node.status import age
from dicom_node.table import printable

_REASONS = 12
"""How many reasons a summary names; the rest is counted."""


def found_in_words(found: Iterable[Candidate]) -> Iterator[tuple[Candidate, str]]:
    """Each series as it is found, with its line, below one for its study."""
    study = ""
    for one in found:
        line = ""
        number, description = printable(one.number), printable(one.description)[:32]
        if one.study_instance_uid != study:
            study = one.study_instance_uid
            line = f"study {study} of {printable(one.study_date) or 'no date'}\n"
        verdict = f"left: {printable(one.against)}" if one.against else "fetch"
        yield one, f"{line}  series {number or '?':>5}  {one.images:5} images  {description:32}  {verdict}"


def summed_up(fetches: Sequence[Fetch], studies_per_hour: float, now: float) -> str:
    """How many series there are of each state, how long it takes still, and what stands in the way."""
    counts = Counter(fetch.state for fetch in fetches)
    lines = [", ".join(f"{counts[state]} {state}" for state in FETCHES)]
    for peer in dict.fromkeys(fetch.peer for fetch in fetches):
        left = [fetch for fetch in fetches if fetch.peer == peer and fetch.state == "found"]
        if left:
            studies = len({fetch.study_instance_uid for fetch in left})
            hours = studies / studies_per_hour
            lines.append(f"{studies} studies to be fetched from {peer}: at least {_hours(hours)}")
        if held := [fetch for fetch in left if fetch.reason]:
            first = min(held, key=lambda fetch: fetch.due_at)
            lines.append(f"  {len(held)} of these series wait {_until(first.due_at - now)}: {printable(first.reason)}")
    for state in ("stopped", "refused"):
        reasons = Counter(fetch.reason for fetch in fetches if fetch.state == state)
        lines += [f"{state}:"] if reasons else []
        lines += [f"  {count:6}  {printable(reason)}" for reason, count in reasons.most_common(_REASONS)]
        if len(reasons) > _REASONS:
            lines.append(f"  and {len(reasons) - _REASONS} other reasons")
    return "\n".join(lines)


def listed_in_words(fetches: Sequence[Fetch], now: float) -> str:
    """A line for each series, below one for its study."""
    lines = []
    study = ""
    for fetch in sorted(fetches, key=lambda one: (one.peer, one.study_instance_uid)):
        if fetch.study_instance_uid != study:
            study = fetch.study_instance_uid
            lines.append(f"study {study} from {fetch.peer}")
        told = f"  {printable(fetch.reason)}" if fetch.reason else ""
        lines.append(
            f"  {fetch.state:8} {age(now - fetch.changed_at):>7} ago  {fetch.images:5} images  "
            f"series {fetch.series_instance_uid}{told}"
        )
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _until(seconds: float) -> str:
    return f"for {age(seconds)}" if seconds > 0 else "for their turn"
