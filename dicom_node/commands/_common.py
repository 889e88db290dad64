"""What the commands share: exit codes, whose configuration is meant, and where the node's state lies."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TypeAlias

from dicom_node.errors import NodeError

DONE, FAILURE, WRONG_USAGE, NOTHING_RECONSTRUCTIBLE = 0, 1, 2, 3

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives; argparse has no public name for it."""

INSTALLED = Path("/etc/qsm-node/node.toml")
"""The configuration of this machine's service, where `make install` puts it."""
ASK_AS_SERVICE = "the service of this machine is asked as its user: sudo -u qsm-node qsm-node …"


def installed() -> Path | None:
    """The configuration of this machine's service; None where there is none that this user may read."""
    return INSTALLED if os.access(INSTALLED, os.R_OK) else None


def is_hidden() -> bool:
    """Whether this machine has a service whose configuration this user may not read."""
    return installed() is None and INSTALLED.parent.is_dir()


def state_folder_of(config: Path | None) -> Path:
    """The state folder of a configuration.  Raises NodeError where no node was ever started in it."""
    from dicom_node import config as configuration

    folder = configuration.load(config).node.state_folder
    try:
        has_served = (folder / "node.db").is_file()
    except PermissionError as error:
        raise NodeError(f"{folder} may not be looked into; {ASK_AS_SERVICE}") from error
    if not has_served:
        remedy = ASK_AS_SERVICE if config is None and is_hidden() else "start it, or name the --config of another"
        raise NodeError(f"no node was ever started in {folder}; {remedy}")
    return folder


def require_user(state_folder: Path) -> None:
    """Raises NodeError for root in the folder of another user's node, who could not change what root makes there."""
    database = state_folder / "node.db"
    there = next((path for path in (database, state_folder) if path.exists()), None) if os.geteuid() == 0 else None
    if there is None or (owner := there.stat().st_uid) == 0:
        return
    from dicom_node.check.machine import name_of

    user = name_of(owner)
    raise NodeError(f"{there} belongs to {user}, who could not use what root makes there: sudo -u {user} qsm-node …")


def time_of(state_folder: Path) -> float:
    """Seconds since the epoch as the node that serves there counts them: its clock goes on evenly where the machine's
    was set, and what is asked for at once must not lie in its future.
    """
    from dicom_node.alone import process

    return time.time() + float(process(state_folder / "node.lock").get("clock_ahead", 0.0))
