"""What `qsm-node status` shows: each job with its state, age and reason; who called, and where results go; what was
left alone and what was not taken.

It stays on the machine: a peer's own words are shown, which may quote a patient (Error Comment, PS3.7 C).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dicom_node import survey
from dicom_node.alone import LOCK_FILE, process
from dicom_node.contacts import callers
from dicom_node.holdings import Holdings
from dicom_node.states import State
from dicom_node.store import Store
from dicom_node.survey import SECTIONS, Line, Section
from dicom_node.table import Column, table, wrapped

LOW_SPACE = 2**30
"""Free bytes below which people are warned that senders are told 0xA700, unless the configuration says otherwise."""
NEWEST_OBJECTIONS = 20
NEWEST_DONE = 10
NEWEST_CALLERS = 20
"""Shown in words; `--json` has them all."""

_AS_EXPECTED = (State.SENT, State.ARCHIVED)
_JOBS = (Column("JOB", 6, ">"), Column("STATE", 14), Column("SINCE", 6, ">"), Column("IMAGES", 6, ">"), Column("WHY"))
_TARGETS = (Column("DESTINATION", 16), Column("STORED", 10), Column("WAITING", 7, ">"), Column("TROUBLE"))
_CALLERS = (Column("CALLER", 16), Column("FROM", 15), Column("LAST", 10), Column("STORED", 7, ">"), Column("TROUBLE"))


def status(
    state_folder: Path, now: float, minimum_free_bytes: int = LOW_SPACE, most_done: int | None = None
) -> dict[str, Any]:
    """Plain data for `--json`.  Needs no running node, but one that was started once.

    minimum_free_bytes: of the configuration.  most_done: of jobs that are done only so many, the latest.
    Raises UnknownSchema if that was another version of this software.
    """
    store = Store(state_folder / "node.db", owner=False)
    jobs = state_folder / "jobs"
    open_ = survey.lines(store, jobs, (*SECTIONS[Section.ATTENTION], *SECTIONS[Section.ACTIVE]))
    lines = sorted([*open_, *survey.lines(store, jobs, SECTIONS[Section.DONE], most_done)], key=lambda line: line.id)
    disk = survey.disk(state_folder)
    ready = [line for line in lines if line.state is State.READY]
    return {
        "node": {
            "state_folder": str(state_folder),
            "free_bytes": disk.free,
            "size_bytes": disk.size,
            "minimum_free_bytes": minimum_free_bytes,
            **process(state_folder / LOCK_FILE),
        },
        "queue": {"length": len(ready), "oldest": max((now - line.changed_at for line in ready), default=0.0)},
        "counts": {state.value: count for state, count in survey.counts(store).items()},
        "jobs": [_job(line, now) for line in lines],
        "destinations": [
            asdict(target) | {"silent_for": target.is_silent_for(now)}
            for target in survey.targets(store, survey.destinations(store))
        ],
        "removed": [asdict(removal) for removal in Holdings(store).removals()],
        "callers": [asdict(caller) for caller in callers(store)],
        "foreign": [{"reason": reason, "count": count} for reason, count in survey.foreign(store)],
        "quarantine": [
            {"at": objection.at, "path": objection.path, "peer": objection.peer, "reason": objection.reason}
            for objection in store.objections()
        ],
    }


def in_words(found: dict[str, Any], now: float, width: int = 80) -> str:
    """The same for people, in lines of at most so many characters but for paths and UIDs, which stay whole."""
    return "\n".join(_lines(found, now, width))


def _lines(found: dict[str, Any], now: float, width: int) -> Iterator[str]:
    node, queue = found["node"], found["queue"]
    running = f"running as process {node['pid']} on port {node['port']}" if node["running"] else "not running"
    yield f"node: {running}"
    yield f"state: {node['state_folder']}"
    if node["free_bytes"] < node["minimum_free_bytes"]:
        needed = f"{node['minimum_free_bytes'] / 2**20:.0f} MiB are needed"
        yield from wrapped(
            f"disk: {node['free_bytes'] / 2**20:.0f} MiB free, {needed}: senders are told 0xA700, make room", width
        )
    else:
        yield f"disk: {node['free_bytes'] / 2**30:.0f} of {node['size_bytes'] / 2**30:.0f} GiB free"
    if node.get("reads_anew"):
        yield from wrapped(
            "index: the images of the spool are being read; no job is made or begun before they are", width
        )
    if node.get("audit"):
        yield from wrapped(f"audit trail: {node['audit']}", width)
    if queue["length"]:
        yield f"queue: {queue['length']} ready, the oldest for {age(queue['oldest'])}"
    yield ""
    yield from _jobs(found["jobs"], found["counts"], width)
    if targets := found["destinations"]:
        yield ""
        yield from table(_TARGETS, [_target(target, now) for target in targets], width)
    if called := found["callers"]:
        yield ""
        yield from table(_CALLERS, [_caller(caller, now) for caller in called[:NEWEST_CALLERS]], width)
    if removed := found["removed"]:
        size, files = (sum(entry[what] for entry in removed) for what in ("bytes", "files"))
        last = removed[-1]
        yield ""
        yield from wrapped(
            f"removed so far: {files} files, {size / 2**30:.1f} GiB; {age(now - last['at'])} ago the last: "
            f"{last['reason']}",
            width,
        )
    if found["foreign"]:
        yield ""
        yield f"left alone: {sum(entry['count'] for entry in found['foreign'])} series or acquisitions"
        for entry in found["foreign"]:
            yield from wrapped(f"{entry['count']:4} × {entry['reason']}", width, "  ")
    if objections := found["quarantine"]:
        yield ""
        yield f"not taken: {len(objections)} objects"
        for objection in objections[-NEWEST_OBJECTIONS:]:
            sender = f" from {objection['peer']}" if objection["peer"] else ""
            said = f"{age(now - objection['at'])} ago{sender}: {objection['reason']}: {objection['path'] or ''}"
            yield from wrapped(said, width, "  ")


def _jobs(jobs: Sequence[dict[str, Any]], counts: Mapping[str, int], width: int) -> Iterator[str]:
    """Those that somebody or the node has to do something about, and the latest of those that are done."""
    if not jobs:
        yield "no jobs"
        return
    done = {state.value for state in SECTIONS[Section.DONE]}
    open_, over = [job for job in jobs if job["state"] not in done], [job for job in jobs if job["state"] in done]
    shown = sorted([*open_, *over[-NEWEST_DONE:]], key=lambda job: int(job["id"]))
    yield from table(_JOBS, [_row(job) for job in shown], width)
    if (more := sum(counts[state] for state in done) - len(over[-NEWEST_DONE:])) > 0:
        yield f"and {more} older ones that are done; --json has them all"


def _row(job: dict[str, Any]) -> list[str]:
    why = "" if job["state"] in _AS_EXPECTED else job["reason"]
    if job["stage"]:
        why = f"{job['stage']} for {age(job['in_stage'])}"
    elif job["place"]:
        why = f"{job['place']}. in the queue: {why}"
    notes = [f"revision {job['revision']}"] if job["revision"] > 1 else []
    notes += [f"attempt {job['attempts']}"] if job["attempts"] > 1 else []
    parts = [f"{why} ({', '.join(notes)})" if notes else why]
    for name, counts in job["destinations"].items():
        if counts["pending"] or counts["refused"] or counts["awaited"]:
            awaited = f", {counts['awaited']} of them not committed to" if counts["awaited"] else ""
            parts.append(
                f"{name}: {counts['stored']} stored{awaited}, {counts['pending']} pending, {counts['refused']} refused"
                f"{': ' if counts['trouble'] else ''}{counts['trouble']}"
            )
    return [str(job["id"]), job["state"], age(job["in_state"]), str(job["images"]), "\n".join(parts)]


def _target(target: dict[str, Any], now: float) -> list[str]:
    stored = f"{age(now - target['stored_at'])} ago" if target["stored_at"] else "never"
    trouble = f"silent for {age(target['silent_for'])}: {target['trouble']}" if target["silent_for"] else ""
    if trouble and target["calls_at"] > now:
        trouble += f"; called again in {age(target['calls_at'] - now)}"
    return [target["name"], stored, str(target["pending"]), trouble]


def _caller(caller: dict[str, Any], now: float) -> list[str]:
    troubles = [f"{caller['refused']} of its objects refused"] if caller["refused"] else []
    if caller["denied"]:
        asked = f"{caller['denied']} {'request' if caller['denied'] == 1 else 'requests'} not authorised"
        troubles.append(f"{asked}, last {age(now - caller['denied_at'])} ago: {caller['reason']}")
    if not caller["accepted"]:
        troubles = [f"rejected {caller['times']} ×: {caller['reason']}"]
    last = f"{age(now - caller['last_at'])} ago"
    return [caller["ae_title"], caller["host"], last, str(caller["stored"] or ""), "\n".join(troubles)]


def age(seconds: float) -> str:
    """ "42 s", "7 min", "5 h", "12 d"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _job(line: Line, now: float) -> dict[str, Any]:
    return {
        "id": line.id,
        "state": line.state.value,
        "reason": line.reason,
        "age": now - line.created_at,
        "in_state": now - line.changed_at,
        "attempts": line.attempts,
        "revision": line.revision,
        "group": line.group,
        "images": line.images,
        "place": line.place,
        "stage": line.stage,
        "in_stage": now - line.stage_at if line.stage else 0.0,
        "destinations": {
            delivery.destination: {key: value for key, value in asdict(delivery).items() if key != "destination"}
            for delivery in line.deliveries
        },
    }
