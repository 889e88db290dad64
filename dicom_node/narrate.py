"""Tells in the log what happens to the jobs: a line for each move of the journal and for each stage of a worker."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import structlog

from dicom_node.states import State
from dicom_node.store import Store

log = structlog.get_logger("job")


class Narrator:
    """Reads on from where it was: the journal from its last line, the progress files from their last byte."""

    def __init__(self, store: Store, jobs_folder: Path) -> None:
        self._store = store
        self._jobs_folder = jobs_folder
        self._move = store.last_move()
        self._offsets = {file: file.stat().st_size for file in jobs_folder.glob("*/progress.jsonl")}

    def __call__(self, running: Iterable[int]) -> None:
        for move in self._store.journal(self._move):
            if move.source is State.RECONSTRUCTING:
                self._stages(move.job)
            self._move = move.id
            log.info(f"job {move.job}: {move.target}", **({"reason": move.reason} if move.reason else {}))
        for job in sorted(running):
            self._stages(job)

    def _stages(self, job: int) -> None:
        file = self._jobs_folder / str(job) / "progress.jsonl"
        offset = self._offsets.get(file, 0)
        if not file.is_file():
            return
        with file.open("rb") as progress:
            if progress.seek(0, 2) < offset:
                offset = 0  # the folder was made anew
            progress.seek(offset)
            content = progress.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offsets[file] = offset + len(whole)
        for line in whole.splitlines():
            log.info(f"job {job}: {json.loads(line)['stage']}")
