"""`make demo`: a scanner sends a multi-echo study, the node reconstructs it, an archive receives map and report.

Real but for the scanner, the archive and (without DATA) the head: `qsm-node serve` runs as a process of its own and
is reached over associations on the loopback interface, with its embedded defaults.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from pydicom.misc import is_dicom

from demo.archive import Archive
from demo.node import Node
from demo.scanner import push
from demo.show import print_arrivals, print_figures

OUTPUT = Path("demo-output")
PATIENCE = 1800.0
"""Seconds until the demonstration gives up: DATA may be a large study."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of DICOM files to send instead of the simulated head")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="what the demonstration leaves behind")
    options = parser.parse_args()
    if options.data is not None and not options.data.is_dir():
        parser.error(f"DATA is {options.data}, which is no folder; expected a folder of DICOM files")

    output: Path = options.output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, Archive(output / "archive") as archive:
        print(f"An archive listens on 127.0.0.1:{archive.port} as {archive.ae_title}.", flush=True)
        with Node(output, archive) as node:
            print(f"The node listens on 127.0.0.1:{node.port} as {node.ae_title}.", flush=True)
            study = options.data or _simulate(Path(scratch))
            print("The scanner sends …", flush=True)
            answers = Counter(d.outcome for d in push(_dicom_files(study), "127.0.0.1", node.port, node.ae_title))
            print(f"The node answered: {dict(answers)}", flush=True)
            jobs = node.follow(time.monotonic() + PATIENCE)
        arrived = print_arrivals(archive)
        print_figures(archive)
        pictures = [shutil.copy(p, output / f"map-{p.parents[1].name}.png") for p in node.pictures()]
    for job in jobs:
        if job["state"] != "sent":
            print(f"Job {job['id']} ended as {job['state']}: {job['reason']}")
    for picture in pictures:
        print(f"\nThree planes of the map: {picture}")
    print(f"Everything stopped after {time.monotonic() - began:.0f} s.  For research, not for diagnosis.")
    return 0 if arrived and pictures else 1


def _dicom_files(folder: Path) -> list[Path]:
    """What a scanner would send: DICOM files of any name; a DICOMDIR and everything else stays behind."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR")
    return [path for path in files if is_dicom(path)]


def _simulate(folder: Path) -> Path:
    from tests.simulation.head import simulate_head
    from tests.simulation.siemens import write_siemens

    print("Simulating a head (3 T, 5 echoes, 1.5 mm) …", flush=True)
    head = simulate_head(
        shape=(128, 160, 112),
        voxel_size=(1.5, 1.5, 1.5),
        echo_times=(0.004, 0.010, 0.016, 0.022, 0.028),
        larmor_frequency=123.2e6,
        snr=60,
        seed=1,
    )
    write_siemens(head, folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
