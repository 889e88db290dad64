"""Broken data sets through admission, spool, description, grouping and conversion, all in one process.

    python -m tests.proof.fuzz FOLDER --count 1000 --seed 1

prints what became of them as JSON.  A process of its own, because it measures its memory and watches what it writes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.admission import NotAdmitted, admit
from dicom_node.convert import convert, describe
from dicom_node.errors import NotConvertible, UnreadableObject
from dicom_node.group import group
from dicom_node.log import configure
from dicom_node.model import Completeness, Group, Instance
from dicom_node.spool import ReceivedObject, Spool
from tests.proof.corpus import Seed, seeds
from tests.proof.mutate import revalued, scrambled
from tests.proof.trespass import watch

CONVERTED_EVERY = 10
"""Of what is admitted, this share is grouped with the rest of its study, and converted where that is complete."""
LARGE = 8000
"""Bytes from which an object is drawn ten times less often: a multi-frame object costs as much as twenty images."""


@dataclass
class Findings:
    """What became of `count` inputs.

    ended: outcome → how often.  surprises: failures that the code does not declare, with one traceback for each place.
    escaped: what was written outside the spool.  peak_mb: resident memory at most.  slowest: seconds for one input.
    """

    count: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    surprises: dict[str, str] = field(default_factory=dict)
    escaped: list[str] = field(default_factory=list)
    peak_mb: float = 0.0
    before_mb: float = 0.0
    slowest: float = 0.0


def data_sets(folder: Path, count: int, seed: int) -> Findings:
    """`count` broken data sets, one after the other.  folder: an empty one; nothing outside it may be written."""
    chance = random.Random(seed)
    sound = seeds(folder / "sound")
    small, large = ([one for one in sound if (len(one.encoded) > LARGE) is big] for big in (False, True))
    encoded = [one.encoded for one in small]
    spool = Spool(folder / "spool")
    found = Findings(before_mb=resident())
    watch(folder, found.escaped.append)
    for _ in range(count):
        one = chance.choice(large if chance.random() < 0.1 else small)
        plain = one.syntax == ExplicitVRLittleEndian
        broken = revalued(one.encoded, chance) if plain and chance.random() < 0.6 else None
        broken = scrambled(one.encoded, chance, encoded) if broken is None else broken
        began = time.perf_counter()
        try:
            ended = _through(one, broken, spool, with_study=chance.random() < 1 / CONVERTED_EVERY)
        except Exception as error:  # noqa: BLE001 - what nobody declares is what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            ended = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            if isinstance(error, InProcess):
                ended = str(error).strip().splitlines()[-1][:200]
            found.surprises.setdefault(ended, "".join(traceback.format_exception(error))[-4000:])
        found.slowest = max(found.slowest, time.perf_counter() - began)
        found.ended[ended] = found.ended.get(ended, 0) + 1
        found.count += 1
    found.peak_mb = resident()
    return found


def resident() -> float:
    """The largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _through(one: Seed, broken: bytes, spool: Spool, *, with_study: bool) -> str:
    """How far an input came; only declared failures are caught."""
    try:
        study = admit(
            broken, sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid, transfer_syntax=one.syntax
        )
    except NotAdmitted as error:
        return f"refused with 0x{error.status:04X}"
    received = ReceivedObject(study, one.sop_class_uid, one.sop_instance_uid, one.syntax, "FUZZ", broken)
    _, path = spool.keep(received)
    try:
        instance = describe(path, 0.0, "")
        if instance.refusal:
            return "indexed, of no use"
        return _in_its_study(instance, one.study) if with_study else "indexed"
    except UnreadableObject:
        return "set aside"
    finally:
        path.unlink()


def _in_its_study(instance: Instance, study: tuple[Path, ...]) -> str:
    groups = group([*_rest(study), instance], now=0.0, quiet_time=0.0, open_associations=frozenset())
    whole = [one for one in groups if one.completeness is Completeness.COMPLETE]
    return _in_a_process(partial(_converted, whole)) if whole else "grouped, incomplete"


def _converted(groups: Sequence[Group]) -> str:
    try:
        for one in groups:
            convert(one)
    except (NotConvertible, UnreadableObject):
        return "grouped, refused by conversion"
    return "converted"


class InProcess(Exception):
    """What a process of `_in_a_process` did not expect, in its words."""


def _in_a_process(work: Callable[[], str]) -> str:
    """As the node does it: a decoder that ends its process takes nothing along but its own job."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException:  # noqa: BLE001 - told to the other side
            answer = f"!{traceback.format_exc()}"
        os.write(writer, answer.encode()[-60_000:])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"a decoder ended its worker ({signal.Signals(os.WTERMSIG(status)).name}), and the job fails alone"
    if answer.startswith("!"):
        raise InProcess(answer[1:])
    return answer


@cache
def _rest(study: tuple[Path, ...]) -> Sequence[Instance]:
    return [describe(path, 0.0, "") for path in study[:-1]]


def main(arguments: Sequence[str] | None = None, prove: Callable[[Path, int, int], Any] = data_sets) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    configure("json", "error")
    print(json.dumps(asdict(prove(options.folder, options.count, options.seed))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
