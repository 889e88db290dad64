"""A day of a department in fast-forward: four scanners of four vendors, and what goes wrong between them and a node.

Every study comes in shuffled order, some images twice.  Of some studies an association breaks off and all of it is sent
again; of others a slice comes after the result has been delivered.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydicom import dcmread

from demo.scanner import push
from tests.e2e.phantom import simple_head
from tests.simulation import ge
from tests.simulation.philips import write_philips
from tests.simulation.siemens import write_siemens
from tests.simulation.united_imaging import write_united_imaging

SCANNERS: dict[str, Callable[..., list[Path]]] = {
    "MR1": write_siemens,
    "MR2": write_philips,
    "MR3": write_united_imaging,
    "MR4": partial(ge.write_ge, components=ge.CARTESIAN),
}
SHAPE = (8, 8, 5)
"""Without the late slice four are left, the fewest that make a volume."""
TWICE = 0.1
"""Of the images."""
EACH = 5
"""Of so many studies of a scanner one is broken off and sent again, and one has a late slice."""


@dataclass
class Study:
    """files: all of it.  late: those that are held back until the others have become a result."""

    scanner: str
    number: int
    files: list[Path]
    late: list[Path] = field(default_factory=list)
    broken_off: bool = False
    uid: str = ""

    @property
    def early(self) -> list[Path]:
        return [path for path in self.files if path not in self.late]


def timetable(folder: Path, studies: int) -> list[Study]:
    """The day's studies, spread over the scanners in turn."""
    day = []
    for number in range(studies):
        scanner = list(SCANNERS)[number % len(SCANNERS)]
        files = SCANNERS[scanner](simple_head(number, SHAPE), folder / f"{number:03d}")
        study = Study(scanner, number, files, uid=str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID))
        turn = number // len(SCANNERS) % EACH
        study.broken_off = turn == 1
        if turn == 2 % max(1, studies // len(SCANNERS)):
            study.late = _last_slice(files)
        day.append(study)
    return day


def play(day: Sequence[Study], port: int, seed: int, delivered: Callable[[Study], None]) -> int:
    """All scanners at once, each its studies one after the other; how many images were acknowledged.

    delivered: returns when the first result of a study is in the archive; a late slice comes after that.
    """
    acknowledged: list[int] = []
    failures: list[BaseException] = []

    def scan(scanner: str) -> None:
        chance = random.Random(f"{seed}/{scanner}")
        try:
            for study in [one for one in day if one.scanner == scanner]:
                acknowledged.append(_send(study, port, chance))
            for study in [one for one in day if one.scanner == scanner and one.late]:
                delivered(study)
                acknowledged.append(_push(study.late, port, scanner))
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=scan, args=(scanner,)) for scanner in SCANNERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(acknowledged)


def _send(study: Study, port: int, chance: random.Random) -> int:
    order = [*study.early, *(path for path in study.early if chance.random() < TWICE)]
    chance.shuffle(order)
    sent = 0
    if study.broken_off:
        broken = push(order, "127.0.0.1", port, "QSMNODE", calling_ae_title=study.scanner)
        for sent, delivery in enumerate(broken, start=1):
            assert delivery.status == 0x0000
            if sent == len(order) // 2:
                try:
                    broken.throw(ConnectionAbortedError())  # type: ignore[attr-defined]  # push is a generator
                except ConnectionAbortedError:
                    break
    return sent + _push(order, port, study.scanner)


def _push(files: Sequence[Path], port: int, scanner: str) -> int:
    answers = [d.status for d in push(files, "127.0.0.1", port, "QSMNODE", calling_ae_title=scanner)]
    assert answers == [0x0000] * len(files)
    return len(answers)


def _last_slice(files: Sequence[Path]) -> list[Path]:
    heights = {path: float(dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]) for path in files}
    return [path for path, height in heights.items() if height == max(heights.values())]
