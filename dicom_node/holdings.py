"""What the node holds on its disk, as the database knows it, and what it has removed: the side of the store that
house-keeping needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.store import Job, Objection, Store

Stand = tuple[float | None, ...]
"""What changes whenever images of a study or the states of its jobs do."""


@dataclass(frozen=True)
class Image:
    """A stored image.  received_at: s since the epoch."""

    sop_instance_uid: str
    path: Path
    received_at: float


@dataclass(frozen=True)
class Removal:
    """A line of the journal of what was removed.  kind: "result", or a fate of `retention`."""

    at: float
    kind: str
    study_instance_uid: str
    job: int | None
    files: int
    bytes: int
    reason: str


class Holdings:
    """Every method is one transaction, or a part of the caller's."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def studies(self, before: float) -> dict[str, Stand]:
        """Studies that hold an image received before then, those of the oldest image first, and how they stand."""
        found = self.store.rows(
            """SELECT * FROM (SELECT study_instance_uid, COUNT(*) AS images, MAX(received_at) AS newest,
                MIN(received_at) AS oldest FROM instances GROUP BY study_instance_uid)
            LEFT JOIN (SELECT study_instance_uid, COUNT(*) AS jobs, MAX(changed_at) AS changed
                FROM jobs GROUP BY study_instance_uid) USING (study_instance_uid)
            WHERE oldest <= :before ORDER BY oldest""",
            {"before": before},
        )
        return {row.pop("study_instance_uid"): tuple(row.values()) for row in found}

    def jobs(self, study: str) -> list[Job]:
        numbers = self.store.rows("SELECT id FROM jobs WHERE study_instance_uid = :study ORDER BY id", {"study": study})
        return [job for row in numbers if (job := self.store.job(row["id"])) is not None]

    def images(self, study: str) -> list[Image]:
        found = self.store.rows(
            "SELECT sop_instance_uid, path, received_at FROM instances WHERE study_instance_uid = :study",
            {"study": study},
        )
        return [Image(**(row | {"path": Path(row["path"])})) for row in found]

    def forget_images(self, uids: Sequence[str]) -> None:
        """For images that are being removed.  Their study is not grouped anew: its jobs were made of them."""
        self.store.database.execute(
            "DELETE FROM instances WHERE sop_instance_uid IN (SELECT value FROM json_each(?))", [json.dumps(list(uids))]
        )

    def awaits_commitment(self, job: int) -> bool:
        """Whether a destination that has stored results of a job has yet to commit itself to them."""
        return bool(
            self.store.rows(
                "SELECT 1 FROM deliveries WHERE job = :job AND commitment IN ('due', 'asked') LIMIT 1", {"job": job}
            )
        )

    def write_down(self, removal: Removal) -> None:
        self.store.database.execute(
            """INSERT INTO removals (at, kind, study_instance_uid, job, files, bytes, reason)
            VALUES (:at, :kind, :study_instance_uid, :job, :files, :bytes, :reason)""",
            vars(removal),
        )

    def removals(self) -> list[Removal]:
        """Oldest first."""
        return [
            Removal(**row)
            for row in self.store.rows(
                "SELECT at, kind, study_instance_uid, job, files, bytes, reason FROM removals ORDER BY id"
            )
        ]

    def objections_about(self, words: str) -> dict[str, Objection]:
        """Of those whose reasons begin so, the last one about each path."""
        found = self.store.rows(
            """SELECT at, path, peer, reason FROM objections WHERE substr(reason, 1, length(:words)) = :words
            ORDER BY id""",
            {"words": words},
        )
        return {row["path"]: Objection(**row) for row in found}

    def withdraw(self, path: str, words: str) -> None:
        """Objections to this file or folder whose reasons begin so."""
        self.store.database.execute(
            "DELETE FROM objections WHERE path = :path AND substr(reason, 1, length(:words)) = :words",
            {"path": path, "words": words},
        )

    def withdraw_below(self, folder: str, before: float) -> None:
        """Objections to what lay in a folder, as old as that."""
        self.store.database.execute(
            "DELETE FROM objections WHERE at <= :before AND substr(path, 1, length(:folder) + 1) = :folder || '/'",
            {"folder": folder, "before": before},
        )

    def withdraw_pathless(self, before: float) -> None:
        """Objections to what was not kept, as old as that; never the last: its number would be given again."""
        self.store.database.execute(
            "DELETE FROM objections WHERE path IS NULL AND at <= ? AND id < (SELECT MAX(id) FROM objections)", [before]
        )

    def pledged(self, answered_after: float = math.inf) -> frozenset[str]:
        """Images about which a scanner has asked for commitment and was not answered, or was answered since then."""
        found = self.store.rows(
            """SELECT DISTINCT json_extract(named.value, '$[1]') AS uid FROM pledges, json_each(instances) AS named
            WHERE answered_at IS NULL OR answered_at > :after""",
            {"after": answered_after},
        )
        return frozenset(row["uid"] for row in found)

    def forget_pledges(self, before: float) -> None:
        """What was answered, or given up, that long ago."""
        self.store.database.execute("DELETE FROM pledges WHERE answered_at < ?", [before])
