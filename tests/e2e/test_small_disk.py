"""A disk that is really full, in a name space of its own: whatever was acknowledged arrives when there is room."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = "64m"
STEPS = 6


def _mounting(disk: Path) -> list[str]:
    """What runs a command with a small file system at `disk`; nobody else sees it, and it is gone with the command."""
    script = f'mount -t tmpfs -o size={SMALL} none "$0" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(disk)]


@pytest.mark.slow
def test_a_full_disk_at_every_step_loses_nothing_and_is_got_over(tmp_path: Path) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    if not shutil.which("unshare") or subprocess.run([*_mounting(disk), "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system of his own (unshare --map-root-user --mount)")
    play = [sys.executable, "-m", "tests.e2e.small_disk", str(disk), str(elsewhere)]
    done = subprocess.run([*_mounting(disk), *play], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert done.stdout.count("good: ") == STEPS
