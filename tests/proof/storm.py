"""kill -9 at random under load, and the count of what came through.

Four scanners send studies to a real `qsm-node serve`, each image until it is answered 0x0000 and never again, as
scanners do.  Meanwhile the node is killed at random, its start included, and started again.  Afterwards every image
that was acknowledged must be in the spool, bit for bit, and every study's results in the archive, once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

from demo.scanner import push
from dicom_node.errors import PeerFailure
from dicom_node.states import State
from tests.e2e.phantom import simple_head
from tests.e2e.serving import Serving
from tests.peers import Orthanc
from tests.proof.corpus import data_set
from tests.proof.plays import KINDS, expected
from tests.simulation.siemens import write_siemens

SCANNERS = 4
BACKLOG = 8
"""Studies without a result at which scanners wait, at most: there is always work, and it comes to an end."""
SHAPE = (8, 8, 2)
SERVED_FOR = 2.0
"""Times as long as its start has taken the node serves at most before it is killed: a job takes about as long."""
BETWEEN_IMAGES = 0.3
"""Seconds, as a scanner makes them: so images are under way at any moment, and a kill finds associations open."""
PATIENCE = 120.0


@dataclass
class Outcome:
    """What a storm came to.  repeated: images sent again because no answer had come.

    lost: acknowledged images that are not in the spool as they were sent.  missing, duplicate: results of the archive.
    unfinished: jobs that did not end as sent.
    """

    kills: int = 0
    while_starting: int = 0
    studies: int = 0
    acknowledged: int = 0
    repeated: int = 0
    results: int = 0
    lost: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Storm:
    """Kills a node that has `archive` as its destination.  seed: of the moments, not of all that follows from them."""

    def __init__(self, folder: Path, archive: Orthanc, seed: int) -> None:
        self._folder = folder
        self._archive = archive
        self._chance = random.Random(seed)
        self._template = [dcmread(path) for path in write_siemens(simple_head(seed, SHAPE), folder / "template")]
        self._studies: list[list[Path]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._backlog = BACKLOG
        self._results = 0
        self._starts_in = 0.0
        self._failures: list[BaseException] = []
        self.outcome = Outcome()

    def run(self, kills: int, told: Callable[[str], None] = lambda line: None) -> Outcome:
        """told: is given a line of progress now and then."""
        began = time.monotonic()
        outcome = self.outcome
        self._backlog = min(BACKLOG, kills)
        with Serving(
            self._folder,
            self._archive.destination.port,
            module="tests.proof.storm_node",
            group={"quiet_time": 6.0},
            log={"level": "warning"},
        ) as node:
            launched = time.monotonic()
            node.start()
            self._starts_in = time.monotonic() - launched
            scanners = [threading.Thread(target=self._scan, args=(n, node), daemon=True) for n in range(SCANNERS)]
            for scanner in scanners:
                scanner.start()
            while outcome.kills < kills and not self._failures:
                self._kill_once(node)
                if outcome.kills % 10 == 0:
                    told(f"{outcome.kills} kills, {outcome.acknowledged} images, {self._results} results")
            self._over.set()
            for scanner in scanners:
                scanner.join()
            if self._failures:
                raise self._failures[0]
            outcome.studies = len(self._studies)
            self._wait_for(lambda: self._held() >= len(self._studies) * len(KINDS) and self._is_idle(node))
            assert node.stop() == 0
            self._count(node)
        outcome.seconds = time.monotonic() - began
        return outcome

    def _kill_once(self, node: Serving) -> None:
        starting = time.monotonic()
        while_starting = self._chance.random() < 0.15
        patience = self._chance.uniform(0.0, self._starts_in) if while_starting else PATIENCE
        while not node.serves and time.monotonic() - starting < patience:
            assert not node.ended, "the node ended by itself; see node.log"
            time.sleep(0.02)
        if node.serves:
            self._starts_in = max(time.monotonic() - starting, self._starts_in / 2)
            time.sleep(self._chance.uniform(0.0, SERVED_FOR * self._starts_in))
        else:
            self.outcome.while_starting += 1
        node.kill()
        self.outcome.kills += 1
        self._results = self._held()
        node.launch()

    def _scan(self, number: int, node: Serving) -> None:
        """One scanner: study after study until the storm is over."""
        try:
            while not self._over.is_set():
                with self._lock:
                    waiting = len(self._studies) - self._results // len(KINDS)
                    study = self._new_study() if waiting < self._backlog else None
                if study is None:
                    time.sleep(0.1)
                    self._results = self._held()
                else:
                    self._send(study, node, f"SCANNER{number}")
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for this thread
            self._failures.append(error)

    def _send(self, study: Sequence[Path], node: Serving, ae_title: str) -> None:
        """Each image until its 0x0000 and not once more."""
        due = list(study)
        deadline = time.monotonic() + PATIENCE
        while due:
            assert time.monotonic() < deadline, "a study could not be brought to the node"
            answered = 0
            try:
                for delivery in push(
                    list(due), "127.0.0.1", node.port, "QSMNODE", calling_ae_title=ae_title, pause=BETWEEN_IMAGES
                ):
                    if delivery.status == 0x0000:
                        due.remove(delivery.path)
                        answered += 1
            except PeerFailure:
                time.sleep(0.2)
            with self._lock:
                self.outcome.acknowledged += answered
                self.outcome.repeated += bool(due and answered)

    def _new_study(self) -> list[Path]:
        """The template under new UIDs."""
        number = len(self._studies)
        folder = self._folder / "sent" / f"{number:05d}"
        folder.mkdir(parents=True)
        paths = []
        for image in self._template:
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
                was = self._original(image, keyword)
                setattr(image, keyword, generate_uid(entropy_srcs=[was, str(number)]))
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            path = folder / f"{len(paths):03d}.dcm"
            image.save_as(path, enforce_file_format=True)
            paths.append(path)
        self._studies.append(paths)
        return paths

    def _original(self, image: object, keyword: str) -> str:
        originals: dict[str, str] = image.__dict__.setdefault("_originals", {})
        return originals.setdefault(keyword, str(getattr(image, keyword)))

    def _held(self) -> int:
        return self._archive.count("Instances")

    def _is_idle(self, node: Serving) -> bool:
        states = list(node.states().values())
        return len(states) >= len(self._studies) and set(states) == {State.SENT}

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Until it is true, or for so long that the count will tell what is missing."""
        deadline = time.monotonic() + PATIENCE
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.2)

    def _count(self, node: Serving) -> None:
        outcome = self.outcome
        spooled = {}
        for path in (node.state_folder / "images").rglob("*.dcm"):
            spooled[str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = data_set(path.read_bytes())
        wanted: set[str] = set()
        for study in self._studies:
            sent = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in study}
            outcome.lost += [uid for uid, path in sent.items() if spooled.get(uid) != data_set(path.read_bytes())]
            wanted |= expected(sent)
        held = [
            self._archive.get(f"instances/{one}")["MainDicomTags"]["SOPInstanceUID"]
            for one in self._archive.get("instances")
        ]
        outcome.results = len(held)
        outcome.missing = sorted(wanted - set(held))
        outcome.duplicate = sorted({uid for uid in held if uid not in wanted or held.count(uid) > 1})
        outcome.unfinished = [f"{job}: {state}" for job, state in node.states().items() if state is not State.SENT]
