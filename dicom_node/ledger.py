"""The ledger: a page for each job, a small file beside the images, from which the database can be made anew.

    ledger/<job>.json   {"job": its row, "deliveries": rows, "journal": rows}

The database marks what has changed, by triggers and in the same transaction, whoever changed it; a round writes the
pages of what is marked.  A page is at most that old, and what it lacks is made good without harm: a job is run to the
same UIDs, an image is sent to an archive that has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from dicom_node.spool import sync, write_durably
from dicom_node.store import Store

EVERY = 5.0
"""Seconds between two rounds."""
PAGES = 200
"""In one round: after an update of the software all are due, and a node that is to stop must not write them all."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Page:
    """What the ledger says of a job: rows as the database had them, by column."""

    job: dict[str, Any]
    deliveries: list[dict[str, Any]]
    journal: list[dict[str, Any]]


class Ledger:
    """Writes pages; a call is a round.  folder: is made if need be."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self) -> None:
        """So many pages, the latest jobs' first.  Raises OSError where one cannot be written: it stays marked."""
        due_now = "SELECT job, changes FROM ledger_due ORDER BY job DESC LIMIT :most"
        for due in self._store.rows(due_now, {"most": PAGES}):
            self._write(due["job"])
            self._store.database.execute(
                "DELETE FROM ledger_due WHERE job = :job AND changes = :changes", due
            )  # unless it has changed since
        for part in self._folder.glob("*.part"):
            part.unlink()

    def write_all(self) -> None:
        """However long that takes."""
        while self._store.rows("SELECT 1 FROM ledger_due LIMIT 1"):
            self()

    def _write(self, job: int) -> None:
        values = {"job": job}
        with self._store.transaction():
            [row] = self._store.rows("SELECT * FROM jobs WHERE id = :job", values)
            page = Page(
                row,
                self._store.rows("SELECT * FROM deliveries WHERE job = :job", values),
                self._store.rows("SELECT * FROM journal WHERE job = :job ORDER BY id", values),
            )
        part, path = self._folder / f"{job}.part", self._folder / f"{job}.json"
        part.unlink(missing_ok=True)
        write_durably(part, json.dumps(vars(page)).encode())
        part.replace(path)
        sync(self._folder)


def pages(folder: Path) -> Iterator[Page]:
    """Every page that can be read, by number of the job; the others are told in the log."""
    numbers = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())
    for number in numbers:
        path = folder / f"{number}.json"
        try:
            page = Page(**json.loads(path.read_text()))
            if page.job["id"] != number:
                raise ValueError(f"it is about job {page.job['id']}")
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.error("page_not_read", path=str(path), error=str(error))
            continue
        yield page
