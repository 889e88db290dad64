"""What the commands share: exit codes, and where the node's state lies."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TypeAlias

from dicom_node import config as configuration
from dicom_node.errors import NodeError

DONE, FAILURE, WRONG_USAGE, NOTHING_RECONSTRUCTIBLE = 0, 1, 2, 3

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives; argparse has no public name for it."""


def state_folder_of(config: Path | None) -> Path:
    """The state folder of a configuration.  Raises NodeError where no node was ever started in it."""
    folder = configuration.load(config).node.state_folder
    if not (folder / "node.db").is_file():
        raise NodeError(f"no node was ever started in {folder}: start one with qsm-node serve, or name its --config")
    return folder


def time_of(state_folder: Path) -> float:
    """Seconds since the epoch as the node that serves there counts them: its clock goes on evenly where the machine's
    was set, and what is asked for at once must not lie in its future.
    """
    from dicom_node.alone import process

    return time.time() + float(process(state_folder / "node.lock").get("clock_ahead", 0.0))
