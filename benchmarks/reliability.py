"""What the node bears: killed at random under load, attacked with broken messages, and a day of traffic at once.

    python -m benchmarks.reliability [--kills 200] [--inputs 100000] [--studies 40] [--write]

The proofs are those of `tests/proof`, which asserts them; here their figures are printed.  Orthanc is the archive of
the storm.  --write puts the tables where docs/reliability.md has them (then `make docs`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.document import MEASURED, ROOT
from dicom_node.log import configure
from tests.peers import running_orthanc
from tests.proof import test_day
from tests.proof.siege import Siege, besieged, conversations, transfers
from tests.proof.storm import SCANNERS, Outcome, Storm
from tests.proof.traffic import timetable

IN_PROCESS = 0.8
"""Share of the broken inputs that are data sets handed to admission itself; the others come through the port."""
SEED = 2026

Table = list[tuple[str, str]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--only", choices=("storm", "fuzz", "day"), help="default: all three")
    parser.add_argument("--write", action="store_true", help="into docs/")
    options = parser.parse_args(arguments)
    configure("console", "error")
    parts = {
        "storm": lambda folder: storm(folder, options.kills),
        "fuzz": lambda folder: fuzz(folder, options.inputs),
        "day": lambda folder: day(folder, options.studies),
    }
    for name, part in parts.items():
        if options.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            table = part(Path(folder))
        text = "\n".join([f"| {what} | {figure} |" for what, figure in [("", ""), ("---", "--:"), *table]])
        print(text, flush=True)
        if options.write:
            file = MEASURED / f"reliability-{name}.md"
            file.write_text(text + "\n", encoding="utf-8")
            print(f"Written: {file.relative_to(ROOT)}")
    return 0


def storm(folder: Path, kills: int) -> Table:
    """kill -9 at random under load."""
    command = shutil.which("Orthanc")
    if command is None:
        raise SystemExit("Orthanc is absent; install Debian's orthanc")
    with running_orthanc(Path(command), folder / "orthanc") as archive:
        found = Storm(folder, archive, SEED).run(kills, lambda line: print(line, file=sys.stderr, flush=True))
    return storm_table(found)


def storm_table(found: Outcome) -> Table:
    return [
        ("kill -9, of them while the node started", f"{found.kills}, {found.while_starting}"),
        (f"studies from {SCANNERS} scanners", str(found.studies)),
        ("images acknowledged (0x0000)", str(found.acknowledged)),
        ("associations that broke off with images answered and images due", str(found.repeated)),
        ("results in the archive", str(found.results)),
        ("**acknowledged images lost**", f"**{len(found.lost)}**"),
        ("**results missing**", f"**{len(found.missing)}**"),
        ("**results twice in the archive**", f"**{len(found.duplicate)}**"),
        ("jobs that did not end as sent", str(len(found.unfinished))),
        ("minutes", f"{found.seconds / 60:.0f}"),
    ]


def fuzz(folder: Path, inputs: int) -> Table:
    """Broken data sets handed to admission itself, and broken conversations and transfers at the port of a node."""
    count = round(IN_PROCESS * inputs)
    line = [sys.executable, "-m", "tests.proof.fuzz", str(folder / "sets"), "--count", str(count), "--seed", str(SEED)]
    (folder / "sets").mkdir()
    began = time.monotonic()
    inside = json.loads(subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout)
    at_port = Siege()
    (folder / "node").mkdir()
    with besieged(folder / "node", at_port) as node:
        conversations(node, (inputs - count) // 2, SEED, at_port)
        transfers(node, folder / "scan", (inputs - count) // 2, SEED, at_port)
    print(json.dumps(inside["ended"]), json.dumps(at_port.answered), *at_port.surprises, sep="\n", file=sys.stderr)
    refused = sum(often for how, often in inside["ended"].items() if how.startswith("refused"))
    died = sum(often for how, often in inside["ended"].items() if how.startswith("a decoder"))
    return [
        ("broken inputs", str(inside["count"] + at_port.inputs)),
        ("data sets, in one process: refused / set aside / indexed", _three(inside["ended"], refused)),
        ("of which a decoder ended its worker: that job fails alone", str(died)),
        ("conversations and transfers, at the port of `qsm-node serve`", str(at_port.inputs)),
        ("of which pynetdicom ended the association by an exception of its own", str(at_port.ended_by_pynetdicom)),
        ("**failures that the code does not declare**", f"**{len(inside['surprises']) + len(at_port.surprises)}**"),
        ("**files written outside the node's folder**", f"**{len(inside['escaped']) + len(at_port.escaped)}**"),
        ("node alive and answering C-ECHO afterwards", "yes" if at_port.alive else "**no**"),
        ("connections left open, threads left over", f"{_more(at_port.sockets)}, {_more(at_port.threads)}"),
        ("peak memory of the process of the data sets, before and after, MB", _grown(inside)),
        ("peak memory of the node, before and after, MB", f"{at_port.before_mb:.0f}, {at_port.peak_mb:.0f}"),
        ("minutes", f"{(time.monotonic() - began) / 60:.0f}"),
    ]


def _three(ended: dict[str, int], refused: int) -> str:
    aside = ended.get("set aside", 0)
    return f"{refused} / {aside} / {sum(ended.values()) - refused - aside}"


def _more(before_and_after: tuple[int, int]) -> str:
    return str(max(0, before_and_after[1] - before_and_after[0]))


def _grown(found: dict[str, float]) -> str:
    return f"{found['before_mb']:.0f}, {found['peak_mb']:.0f}"


def day(folder: Path, studies: int) -> Table:
    """Four scanners of four vendors at once."""
    os.environ["PYTHONPATH"] = str(ROOT)  # so that a worker can import what is played
    began = time.monotonic()
    planned = timetable(folder / "scanners", studies)
    found, states, acknowledged = test_day.run(folder, planned)
    expected = {study.uid: Counter(test_day.right(study)) for study in planned}
    images = sum(len(study.files) for study in planned)
    return [
        ("studies, images", f"{studies}, {images}"),
        ("images acknowledged, those sent twice or again included", str(acknowledged)),
        ("studies of which an association broke off", str(sum(study.broken_off for study in planned))),
        ("studies with a slice that came after the result", str(sum(bool(study.late) for study in planned))),
        ("jobs, revisions included", str(len(states))),
        ("**studies with exactly the right results**", f"**{sum(found.get(u) == e for u, e in expected.items())}**"),
        ("results too many or too few", str(_difference(expected, found))),
        ("minutes", f"{(time.monotonic() - began) / 60:.1f}"),
    ]


def _difference(expected: dict[str, Counter[str]], found: dict[str, Counter[str]]) -> int:
    keys = expected.keys() | found.keys()
    pairs = [(expected.get(key, Counter()), found.get(key, Counter())) for key in keys]
    return sum((one - other).total() + (other - one).total() for one, other in pairs)


if __name__ == "__main__":
    sys.exit(main())
