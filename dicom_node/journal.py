"""The journal of one job: its moves, the stages of its reconstructions, and how it fared at each destination, in order.

It names no patient: what a destination said in its own words is left out.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from dicom_node import survey
from dicom_node.errors import NodeError
from dicom_node.store import Store
from dicom_node.table import Column, table

_COLUMNS = (Column("TIME", 19), Column("WHAT", 16), Column("WHY"))


class NoSuchJob(NodeError):
    """A number that no job has."""


def entries(state_folder: Path, job: int) -> list[dict[str, Any]]:
    """Plain data: "at" (s since the epoch), "what" and "why".

    what: a state; "stage" for a stage of a worker (why names it); "destination" for how it stands at one.
    Raises NoSuchJob.
    """
    store = Store(state_folder / "node.db", owner=False)
    moves = store.journal_of(job)
    line = survey.line(store, state_folder / "jobs", job)
    if line is None:
        raise NoSuchJob(f"there is no job {job}; qsm-node status lists them")
    found: list[dict[str, Any]] = [{"at": move.at, "what": move.target.value, "why": move.reason} for move in moves]
    found += [{"at": at, "what": "stage", "why": stage} for stage, at in _stages(state_folder / "jobs" / str(job))]
    for row in store.rows(
        """SELECT destination, outcome, COUNT(*) AS n, MAX(changed_at) AS at, comment FROM deliveries WHERE job = :job
        GROUP BY destination, outcome""",
        {"job": job},
    ):
        trouble = survey.told(row["comment"]) if row["outcome"] != "stored" else ""
        why = f"{row['destination']}: {row['n']} {row['outcome']}{': ' if trouble else ''}{trouble}"
        found.append({"at": row["at"], "what": "destination", "why": why})
    return sorted(found, key=lambda entry: float(entry["at"]))


def in_words(found: list[dict[str, Any]], width: int = 80) -> str:
    """For people; times are the machine's."""
    rows = [
        [time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["at"])), entry["what"], entry["why"]]
        for entry in found
    ]
    return "\n".join(table(_COLUMNS, rows, width))


def _stages(job_folder: Path) -> list[tuple[str, float]]:
    """Of all attempts that the folder remembers."""
    try:
        written = (job_folder / "progress.jsonl").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    whole = written[: written.rfind(b"\n") + 1].splitlines()
    return [(str(entry["stage"]), float(entry["at"])) for entry in map(json.loads, whole)]
