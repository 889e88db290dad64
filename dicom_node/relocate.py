"""Rows name files by whole paths: those of a state folder that was moved or restored elsewhere are told where it is."""

from __future__ import annotations

from pathlib import Path

import structlog

from dicom_node.store import Store

PLACES = {
    "instances": "path = :new || substr(path, length(:old) + 1), "
    "description = json_set(description, '$.path', :new || substr(path, length(:old) + 1))",
    "deliveries": "path = :new || substr(path, length(:old) + 1)",
    "objections": "path = :new || substr(path, length(:old) + 1)",
    "held_images": "path = :new || substr(path, length(:old) + 1)",
}
"""What has paths, and how they change."""

log = structlog.get_logger(__name__)


def relocate(store: Store, state_folder: Path) -> None:
    """Before the spool is looked through: images under an old path would be taken for lost."""
    old = _root(store)
    if old is None or old == state_folder:
        return
    values = {"old": str(old), "new": str(state_folder)}
    with store.transaction() as database:
        for table, change in PLACES.items():
            database.execute(
                f"UPDATE {table} SET {change} WHERE substr(path, 1, length(:old) + 1) = :old || '/'", values
            )
    log.warning("state_folder_moved", was=str(old), now=str(state_folder))


def _root(store: Store) -> Path | None:
    """Where the state folder was when its rows were written."""
    for table, above, folder in (("instances", 2, "images"), ("deliveries", 4, "jobs")):
        for row in store.rows(f"SELECT path FROM {table} LIMIT 1"):
            parents = Path(row["path"]).parents
            if len(parents) > above and parents[above - 1].name == folder:
                return parents[above]
    return None
