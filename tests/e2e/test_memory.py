"""How much memory the daemon holds while a large object comes in, from its start to the row of the object."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import intake
from benchmarks.receivers import Place, running

FRAMES = 600
"""Of 512 × 512 pixels: 315 MB."""
MOST = 100_000
"""kB; 90,000 were measured when this was written."""


@pytest.mark.slow
def test_a_large_object_comes_in_with_little_memory(tmp_path: Path, storescu_command: Path) -> None:
    assert storescu_command.exists()
    file = intake.large_object(tmp_path / "large", FRAMES)
    assert file.stat().st_size > 3e8
    with running("node", tmp_path / "node", Place(), nagle=False) as receiver:
        intake.send(receiver, [file.parent], 1)
        status = Path(f"/proc/{receiver.process}/status").read_text()
    (most,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert most < MOST
