"""Apart: what needs the libraries of the physics is called in a process of its own, and the daemon holds none of them.

They take 150 MB, for as long as a process lives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dicom_node.execute import ProcessPerJob
from dicom_node.recipes import Recipe

T = TypeVar("T")

Apart = Callable[..., Any]
"""Calls a function of a module with arguments, there or here, and returns what it returned."""

PATIENCE = 60.0
"""Seconds for one call; it takes two on an idle machine.  Whoever waits gives no sign of life, and the watchdog of the
service waits 120 s for one."""


def in_process(function: Callable[..., T], *arguments: Any) -> T:
    """Raises what the function raises, and WorkerDied."""
    with ProcessPerJob(1, 1, PATIENCE) as executor:
        return executor.submit(function, *arguments).result()


def in_place(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)


def reconstruct_job(job_folder: Path, recipe: Recipe) -> Path:
    """`reconstruct.reconstruct_job`, by a name that costs the daemon nothing: whoever calls it loads the rest."""
    from dicom_node import reconstruct

    return reconstruct.reconstruct_job(job_folder, recipe)
