"""What a worker plays instead of the physics; light to import, since every job is a process of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from pydicom.uid import generate_uid

from reconstruction import Recipe
from tests.dicom_node.making import a_file, a_report


def made_from(job_folder: Path, name: str) -> str:
    return str(generate_uid(entropy_srcs=[*json.loads((job_folder / "job.json").read_text())["instances"], name]))


def play(job_folder: Path, recipe: Recipe) -> Path:
    """Makes two results whose UIDs follow from the images, as the real one does."""
    for name in ("chi", "r2star"):
        a_file(job_folder / "result" / "dicom" / f"{name}.dcm", made_from(job_folder, name))
    return a_report(job_folder / "result")


LARGE = 6 * 2**20


def play_largely(job_folder: Path, recipe: Recipe) -> Path:
    """Needs so many bytes of disk on its way."""
    part = job_folder / "result.part"
    part.mkdir()
    (part / "large").write_bytes(bytes(LARGE))
    (part / "large").unlink()
    part.rmdir()
    return play(job_folder, recipe)


def play_slowly(job_folder: Path, recipe: Recipe) -> Path:
    """The first time it never ends; the second time it does."""
    mark = job_folder / "pid"
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        time.sleep(300)
    return play(job_folder, recipe)


def play_when_told(job_folder: Path, recipe: Recipe) -> Path:
    """Waits for a file `go` beside the state folder."""
    while not (job_folder.parents[2] / "go").exists():
        time.sleep(0.05)
    return play(job_folder, recipe)


def play_murderously(job_folder: Path, recipe: Recipe) -> Path:
    """The first job of all kills its process whenever it is run."""
    if job_folder.name == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return play(job_folder, recipe)
