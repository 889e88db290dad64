"""A disk that is really full, in a name space of its own: whatever was acknowledged arrives when there is room."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = "64m"
STEPS = 6


def _mounting(disk: Path) -> list[str]:
    """What mounts a small file system at `disk`, in a name space that nobody else sees, and runs a command there."""
    return ["sh", "-c", f'mount -t tmpfs -o size={SMALL} none "$0" && exec "$@"', str(disk)]


@pytest.mark.slow
def test_a_full_disk_at_every_step_loses_nothing_and_is_got_over(tmp_path: Path, private_mount: Sequence[str]) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    play = [sys.executable, "-m", "tests.e2e.small_disk", str(disk), str(elsewhere)]
    done = subprocess.run(
        [*private_mount, *_mounting(disk), *play], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert done.stdout.count("good: ") == STEPS
