"""What `qsm-node status` shows: each job with its state, age and reason; what was left alone and what was not taken."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from dicom_node.outbox import Outbox
from dicom_node.states import State
from dicom_node.store import Job, Store

LOW_SPACE = 2**30
"""Free bytes below which people are warned: about three studies from senders being told 0xA700."""
NEWEST_OBJECTIONS = 20
"""Shown in words; `--json` has them all."""


def status(state_folder: Path, now: float) -> dict[str, Any]:
    """Plain data for `--json`.  Needs no running node, but one that was started once.

    Raises UnknownSchema if that was another version of this software.
    """
    store = Store(state_folder / "node.db", owner=False)
    outbox = Outbox(store)
    jobs = store.jobs()
    return {
        "node": {
            "state_folder": str(state_folder),
            "free_bytes": shutil.disk_usage(state_folder).free,
            **process(state_folder / "node.lock"),
        },
        "jobs": [_job(job, outbox, now) for job in jobs if job.state is not State.FOREIGN],
        "foreign": [
            {"reason": reason, "count": count}
            for reason, count in Counter(job.reason for job in jobs if job.state is State.FOREIGN).most_common()
        ],
        "quarantine": [
            {"at": objection.at, "path": objection.path, "peer": objection.peer, "reason": objection.reason}
            for objection in store.objections()
        ],
    }


def in_words(found: dict[str, Any], now: float) -> str:
    """The same for people."""
    node = found["node"]
    running = f"running as process {node['pid']} on port {node['port']}" if node["running"] else "not running"
    lines = [f"node in {node['state_folder']}: {running}"]
    if node["free_bytes"] < LOW_SPACE:
        lines.append(
            f"disk: {node['free_bytes'] / 2**20:.0f} MB free; senders are told 0xA700 when it is full: make room"
        )
    lines.append("")
    lines += [_line(job) for job in found["jobs"]] or ["no jobs"]
    if found["foreign"]:
        lines += ["", f"left alone: {sum(entry['count'] for entry in found['foreign'])} series or acquisitions"]
        lines += [f"  {entry['count']:4} × {entry['reason']}" for entry in found["foreign"]]
    if objections := found["quarantine"]:
        lines += ["", f"not taken: {len(objections)} objects"]
        for objection in objections[-NEWEST_OBJECTIONS:]:
            sender = f" from {objection['peer']}" if objection["peer"] else ""
            lines.append(
                f"  {age(now - objection['at'])} ago{sender}: {objection['reason']}: {objection['path'] or ''}"
            )
    return "\n".join(lines)


def age(seconds: float) -> str:
    """ "42 s", "7 min", "5 h", "12 d"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _job(job: Job, outbox: Outbox, now: float) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state.value,
        "reason": job.reason,
        "age": now - job.created_at,
        "in_state": now - job.changed_at,
        "attempts": job.attempts,
        "revision": job.revision,
        "group": job.group_key,
        "images": len(job.images),
        "destinations": _destinations(outbox, job.id),
    }


def _destinations(outbox: Outbox, job: int) -> dict[str, Any]:
    """For each destination how many are pending, stored and refused, how many it has committed itself to keep or has
    yet to, and the last trouble in the peer's words."""
    counts = ("pending", "stored", "refused", "committed", "awaited")
    found: dict[str, dict[str, Any]] = defaultdict(lambda: {**dict.fromkeys(counts, 0), "trouble": ""})
    for row in sorted(outbox.of(job), key=lambda row: row.changed_at):
        found[row.destination][row.outcome] += 1
        found[row.destination]["committed"] += row.commitment == "given"
        found[row.destination]["awaited"] += row.outcome == "stored" and row.commitment in ("due", "asked")
        if row.comment and (row.outcome != "stored" or row.commitment in ("due", "asked")):
            found[row.destination]["trouble"] = row.comment
            found[row.destination]["attempts"] = row.attempts
            found[row.destination]["next_at"] = row.due_at
    return dict(found)


def _line(job: dict[str, Any]) -> str:
    revision = f", revision {job['revision']}" if job["revision"] > 1 else ""
    attempts = f", attempt {job['attempts']}" if job["attempts"] > 1 else ""
    line = (
        f"job {job['id']:<4} {job['state']:<15} for {age(job['in_state'])} "
        f"({job['images']} images{revision}{attempts}, {age(job['age'])} old): {job['reason']}"
    )
    for name, counts in job["destinations"].items():
        if counts["pending"] or counts["refused"] or counts["awaited"]:
            awaited = f", {counts['awaited']} of them not committed to" if counts["awaited"] else ""
            line += (
                f"\n    {name}: {counts['stored']} stored{awaited}, {counts['pending']} pending, "
                f"{counts['refused']} refused"
                f"{': ' if counts['trouble'] else ''}{counts['trouble']}"
            )
    return line


def process(lock_file: Path) -> dict[str, Any]:
    """Who serves the folder, if anybody holds its lock."""
    if not lock_file.is_file():
        return {"running": False}
    with lock_file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            content = lock.read().strip()
            return {"running": True, "pid": None, "port": None} | (json.loads(content) if content else {})
    return {"running": False}
