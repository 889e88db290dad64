"""How much memory the daemon holds: at rest, after images have come, and after all of them were found and fetched.

    python -m benchmarks.resident [--images N] [--write]

dcmtk's storescu, findscu and getscu do it, one after the other, over an association each.  now: resident in its process
after that; most: at any moment until then (proc_pid_status(5): VmRSS, VmHWM).  --write puts the table into
docs/measured/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread

from benchmarks.document import MEASURED
from benchmarks.intake import PATIENCE, scans, send
from benchmarks.receivers import Place, Running, running

HEADER = ["| after | now, MB | most, MB |", "|---|---|---|"]


def held(process: int) -> tuple[float, float]:
    """MB resident in a process: now, and at most until now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    values = {name: value for name, _, value in (line.partition(":") for line in lines)}
    now, most = (int(values[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return now, most


def row(what: str, receiver: Running) -> str:
    now, most = held(receiver.process)
    line = f"| {what} | {now:.0f} | {most:.0f} |"
    print(line, flush=True)
    return line


def ask(command: str, receiver: Running, level: str, study: str, *options: str) -> None:
    """Raises CalledProcessError where it fails."""
    keys = ["-k", f"QueryRetrieveLevel={level}", "-k", f"StudyInstanceUID={study}", *options]
    address = [receiver.place.host, str(receiver.port)]
    words = [command, "-S", "-aec", "QSMNODE", *keys, *address]
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)


def measure(images: int, scratch: Path) -> Sequence[str]:
    folders = scans(scratch / "images", images, 1)
    study = str(dcmread(next(folders[0].iterdir()), stop_before_pixels=True).StudyInstanceUID)
    (scratch / "fetched").mkdir()
    with running("queried", scratch / "store", Place(), nagle=False) as receiver:
        lines = [row("start, and a C-ECHO", receiver)]
        send(receiver, folders, images)
        deadline = time.monotonic() + PATIENCE
        while receiver.catalogued < images:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{receiver.catalogued} of {images} images are listed after {PATIENCE} s")
            time.sleep(0.1)
        lines.append(row(f"{images} images by C-STORE", receiver))
        ask("findscu", receiver, "IMAGE", study, "-k", "SOPInstanceUID", "-k", "SeriesInstanceUID")
        lines.append(row("all of them found by C-FIND", receiver))
        ask("getscu", receiver, "STUDY", study, "-od", str(scratch / "fetched"))
        lines.append(row("all of them fetched by C-GET", receiver))
    if (fetched := len(list((scratch / "fetched").iterdir()))) != images:
        raise RuntimeError(f"{fetched} of {images} images were fetched; see the node's log")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resident", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--write", action="store_true", help="into docs/measured/")
    options = parser.parse_args(arguments)
    print("\n".join(HEADER), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        table = [*HEADER, *measure(options.images, Path(scratch))]
    if options.write:
        (MEASURED / "resident.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
