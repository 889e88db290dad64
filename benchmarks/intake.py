"""How fast images come in, and with how much memory: this node beside Orthanc and dcmtk's storescp, in one run.

    python -m benchmarks.intake [--images N] [--rounds N] [--associations N …] [--receivers NAME …] [--write]
    python -m benchmarks.intake --link [--images N] [--write]      over network namespaces, MTU 1500; as root
    python -m benchmarks.intake --large [--frames N] [--write]     one enhanced object of 512 × 512 × 600 pixels

dcmtk's storescu sends MR images of 256 × 256 pixels, without Nagle's algorithm (TCP_NODELAY=1), which Orthanc and
storescp are spared too.  With --link they are as they come, and senders are both with Nagle's algorithm and without.
The node waits for the disk with each file and its folder, Orthanc 1.10 with each file (fdatasync), storescp never.
The receivers take turns, each with an empty store, and the median is given.
The time is that of the senders, from their start to their end.  `indexed` is when the last image was in the node's
database, in % of that time; the others index before they answer, or never.  CPU: of the receiver until then, for each
image.  MB: memory resident at most.
--write puts the table into docs/measured/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pydicom.uid import generate_uid

from benchmarks.document import MEASURED
from benchmarks.receivers import COMMANDS, Place, Running, linked, running
from tests.objects import enhanced_mr_image, mr_image, write

SIDE = 256
LARGE_SIDE = 512
PATIENCE = 600.0
"""Seconds until a sender, or the node's index, is given up."""


@dataclass(frozen=True)
class Sample:
    """One run of one receiver: seconds of the senders, seconds until all was indexed, bytes resident at most.

    cpu: seconds of the receiver until all was indexed.
    """

    seconds: float
    indexed: float | None
    peak: int
    cpu: float


def scans(folder: Path, images: int, parts: int) -> list[Path]:
    """As many folders of images as there are associations, each of them a study."""
    folders = []
    for part in range(parts):
        study, series = generate_uid(), generate_uid()
        found = []
        for number in range(part, images, parts):
            image = mr_image(number, rows=SIDE, columns=SIDE)
            image.StudyInstanceUID, image.SeriesInstanceUID = study, series
            found.append(image)
        folders.append(folder / str(part))
        write(folders[-1], *found)
    return folders


def large_object(folder: Path, frames: int) -> Path:
    """One enhanced MR image in explicit VR little endian, 0.5 MB a frame."""
    image = enhanced_mr_image(frames)
    image.Rows = image.Columns = LARGE_SIDE
    image.PixelData = os.urandom(2 * LARGE_SIDE * LARGE_SIDE) * frames
    (path,) = write(folder, image)
    return path


def send(receiver: Running, what: Sequence[Path], images: int, *, nagle: bool = False) -> Sample:
    """One storescu for each folder or file, all at once.  Raises RuntimeError if one of them fails."""
    environment = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    environment |= {} if nagle else {"TCP_NODELAY": "1"}
    command = [*receiver.place.sending, "storescu", "-aec", "QSMNODE", "+sd", "+r"]
    address = [receiver.place.host, str(receiver.port)]
    began, spent = time.monotonic(), receiver.cpu
    into = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    senders = [subprocess.Popen([*command, *address, str(one)], **into) for one in what]  # type: ignore[call-overload]  # mypy cannot tell which
    for sender in senders:
        told, _ = sender.communicate(timeout=PATIENCE)
        if sender.returncode:
            raise RuntimeError(f"storescu to {receiver.name} ended with {sender.returncode}: {told[-500:]!r}")
    seconds = time.monotonic() - began
    if receiver.indexed is None:
        return Sample(seconds, None, receiver.peak, receiver.cpu - spent)
    while (receiver.indexed or 0) < images:
        if time.monotonic() > began + PATIENCE:
            raise TimeoutError(f"{receiver.indexed} of {images} images are indexed after {PATIENCE} s")
        time.sleep(0.02)
    return Sample(seconds, time.monotonic() - began, receiver.peak, receiver.cpu - spent)


def compare(
    names: Sequence[str], what: list[Path], images: int, rounds: int, place: Place, scratch: Path, *, nagle: bool
) -> dict[str, list[Sample]]:
    """`rounds` samples of each receiver, taken in turns."""
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)  # or the same one would always follow the same other, in its warm caches
        for name in [*names[first:], *names[:first]]:
            folder = scratch / "store"
            with running(name, folder, place, nagle=place.sending != ()) as receiver:
                samples[name].append(send(receiver, what, images, nagle=nagle))
            shutil.rmtree(folder)
    return samples


def rows(case: str, samples: dict[str, list[Sample]], images: int) -> list[str]:
    """A line for each receiver: rate, ratio to Orthanc, CPU time, time to the index, memory."""
    rates = {name: images / median(one.seconds for one in found) for name, found in samples.items()}
    lines = []
    for name, found in samples.items():
        ratio = f"{rates[name] / rates['orthanc']:.2f}" if "orthanc" in rates else ""
        peak = max(one.peak for one in found) / 1e6
        late = [one.indexed / one.seconds for one in found if one.indexed is not None]
        indexed = f"{100 * median(late):.0f}" if late else ""
        cpu = 1000 * median(one.cpu for one in found) / images
        lines.append(
            f"| {case} | {name} | {float(f'{rates[name]:.3g}'):g} | {ratio} | {cpu:.2f} | {indexed} | {peak:.0f} |"
        )
    return lines


HEADER = [
    "| senders | receiver | images/s | of Orthanc | CPU, ms/image | indexed, % | MB |",
    "|---|---|---|---|---|---|---|",
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4], metavar="N")
    parser.add_argument("--receivers", nargs="+", choices=list(COMMANDS), default=["node", "orthanc", "storescp"])
    parser.add_argument("--link", action="store_true", help="over network namespaces (as root)")
    parser.add_argument("--large", action="store_true", help="one large object instead of many images")
    parser.add_argument("--frames", type=int, default=600, help="of the large object")
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to be measured (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="into docs/measured/")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.scratch) as temporary:
        scratch = Path(temporary)
        table = [*HEADER]
        print("\n".join(table), flush=True)
        if options.large:
            file = large_object(scratch / "large", options.frames)
            cases = [(f"1 object of {file.stat().st_size / 1e6:.0f} MB", [file.parent], 1, False)]
        else:
            cases = []
            for count in options.associations:
                folders = scans(scratch / str(count), options.images, count)
                words = f"{count} association{'s' * (count > 1)}"
                if options.link:
                    cases.append((f"{words}, with Nagle", folders, options.images, True))
                cases.append((f"{words}, without Nagle", folders, options.images, False))
        with linked() if options.link else nullcontext(Place()) as place:
            for case, folders, images, nagle in cases:
                found = compare(options.receivers, folders, images, options.rounds, place, scratch, nagle=nagle)
                lines = rows(case, found, images)
                print("\n".join(lines), flush=True)
                table += lines
    if options.write:
        name = "intake-large" if options.large else "intake-link" if options.link else "intake"
        (MEASURED / f"{name}.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
