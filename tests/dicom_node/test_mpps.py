"""What a scanner tells of its procedure step: it closes what is whole, and holds what the grid takes for whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.call import Destination, SendSettings, associate
from dicom_node.config import Config
from dicom_node.exchange import procedure_step_service
from dicom_node.gate import NOT_AUTHORISED
from dicom_node.group import group
from dicom_node.model import Completeness, Group, Instance
from dicom_node.mpps import (
    DUPLICATE,
    FAILURE,
    INVALID_INSTANCE,
    INVALID_VALUE,
    KEPT,
    MISSING,
    MPPS,
    NO_LONGER_UPDATED,
    UNKNOWN,
    ProcedureSteps,
    Status,
    Step,
    heed,
    steps_with,
)
from dicom_node.peers import Peer, Peers, Right
from dicom_node.regroup import regroup
from dicom_node.send import send
from dicom_node.states import State
from dicom_node.store import Store
from tests.dicom_node.instances import CLASSIC, FOR_EACH_ECHO, M, Stacks, scan
from tests.dicom_node.making import STUDY, Clock, an_instance
from tests.dicom_node.test_daemon import a_config, serving
from tests.e2e.phantom import simple_head
from tests.peers import Node, running_node, wait_until
from tests.simulation.siemens import write_siemens

QUIET = 60.0
AT_ONCE, LATER = 1.0, 1000.0


def told(images: Sequence[Instance], status: Status = Status.COMPLETED, *, listed: bool = True) -> Step:
    """The step that has made these images."""
    series: dict[str, set[str]] = {}
    for image in images:
        series.setdefault(image.series_instance_uid, set()).update([image.sop_instance_uid] if listed else [])
    return Step(status, {name: frozenset(uids) for name, uids in series.items()})


def heeded(images: Sequence[Instance], *steps: Step, now: float = AT_ONCE, still_open: str = "1") -> Group:
    open_associations = frozenset([still_open])
    groups = group(images, now, QUIET, open_associations)
    [found] = heed(groups, steps, images, now, QUIET)
    return found


def test_what_is_whole_and_was_named_is_closed_at_once_though_the_association_is_open() -> None:
    images = scan(CLASSIC)
    assert heeded(images).completeness is Completeness.WAITING
    assert heeded(images, told(images)).completeness is Completeness.COMPLETE


def test_slices_that_are_missing_at_the_end_are_waited_for_and_then_told() -> None:
    images = scan(CLASSIC, slices=9)
    come = [image for image in images if image.frames[0].position[2] < max(i.frames[0].position[2] for i in images)]
    assert heeded(come, still_open="").completeness is Completeness.COMPLETE, "the grid sees no hole"
    waiting = heeded(come, told(images), still_open="")
    assert waiting.completeness is Completeness.WAITING
    given_up = heeded(come, told(images), now=LATER)
    assert given_up.completeness is Completeness.INCOMPLETE
    assert given_up.reason == "6 images that the scanner says it has made did not come"
    assert heeded(images, told(images), now=LATER).completeness is Completeness.COMPLETE


def test_a_series_for_each_echo_is_closed_when_all_of_the_step_has_come() -> None:
    images = scan(FOR_EACH_ECHO)
    first = [image for image in images if image.frames[0].echo_time == 4]
    assert heeded(first, told(images), still_open="").completeness is Completeness.WAITING, "looks full"
    assert heeded(images, told(images)).completeness is Completeness.COMPLETE


@pytest.mark.parametrize("form", [CLASSIC, FOR_EACH_ECHO])
def test_a_step_that_names_no_images_leaves_it_to_the_time(form: Stacks) -> None:
    images = scan(form, slices=9)
    for come in (images, [image for image in images if image.frames[0].position[2] < 4]):
        for now, still_open in ((AT_ONCE, "1"), (AT_ONCE, ""), (LATER, "")):
            silent = heeded(come, now=now, still_open=still_open)
            assert heeded(come, told(images, listed=False), now=now, still_open=still_open) == silent


def test_a_t1_that_its_scanner_has_completed_stays_foreign() -> None:
    images = scan(((5, M, (4.0,)),))
    assert heeded(images, told(images)).completeness is Completeness.WAITING
    assert heeded(images, told(images), now=LATER).completeness is Completeness.FOREIGN


@pytest.mark.parametrize("status", [Status.IN_PROGRESS, Status.DISCONTINUED])
def test_a_step_that_is_not_completed_closes_and_holds_nothing(status: Status) -> None:
    images = scan(CLASSIC)
    assert heeded(images, told(images, status)).completeness is Completeness.WAITING
    assert heeded(images[:-1], told(images, status), now=LATER).completeness is Completeness.INCOMPLETE
    assert heeded(images, told(images, status), now=LATER).completeness is Completeness.COMPLETE


def test_a_hole_stays_a_hole_and_that_the_scan_was_broken_off_is_told() -> None:
    images = scan(CLASSIC)
    assert heeded(images[:-1], told(images[:-1])).completeness is Completeness.WAITING
    reason = heeded(images[:-1], told(images, Status.DISCONTINUED), now=LATER).reason
    assert reason.endswith("; the scanner has discontinued the procedure step")


def test_another_scan_of_the_study_is_not_touched() -> None:
    images = scan(CLASSIC)
    other = told([replace(image, series_instance_uid=f"{image.series_instance_uid}.9") for image in images])
    assert heeded(images, other).completeness is Completeness.WAITING


# Over the network


class Modality:
    """A scanner that tells of a step."""

    def __init__(self, association: Association) -> None:
        self._association = association

    def create(
        self, uid: str = "1.2.9", status: str | None = "IN PROGRESS", *series: Dataset, study: str = STUDY
    ) -> Dataset:
        step, scheduled = Dataset(), Dataset()
        scheduled.StudyInstanceUID = study
        step.ScheduledStepAttributesSequence = [scheduled]
        step.PatientName = "Doe^Jane"
        if status is not None:
            step.PerformedProcedureStepStatus = status
        step.PerformedSeriesSequence = list(series)
        return self._association.send_n_create(step, MPPS, uid)[0]

    def set(self, uid: str = "1.2.9", status: str | None = "IN PROGRESS", *series: Dataset) -> Dataset:
        change = Dataset()
        if status is not None:
            change.PerformedProcedureStepStatus = status
        if series:
            change.PerformedSeriesSequence = list(series)
        return self._association.send_n_set(change, MPPS, uid)[0]


def a_series(uid: str, *images: str) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = uid
    item.ReferencedImageSequence = []
    for image in images:
        reference = Dataset()
        reference.ReferencedSOPInstanceUID = image
        item.ReferencedImageSequence.append(reference)
    return item


@contextmanager
def a_modality(node: Node) -> Iterator[Modality]:
    with associate([build_context(MPPS)], node.destination, SendSettings("SCANNER")) as association:
        yield Modality(association)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


@contextmanager
def told_node(folder: Path, store: Store, *may: Right, clock: Clock | None = None) -> Iterator[Node]:
    service = procedure_step_service(ProcedureSteps(store, clock or Clock()))
    peers = Peers([Peer("scanner", "SCANNER", "127.0.0.1", frozenset(may))])
    with running_node(folder / "spool", peers=peers, services=[service]) as node:
        yield node


def test_a_step_is_written_down_before_it_is_answered_and_ends_once(tmp_path: Path, store: Store) -> None:
    with told_node(tmp_path, store, Right.MPPS) as node, a_modality(node) as scanner:
        assert scanner.create().Status == 0
        assert scanner.create().Status == DUPLICATE
        assert scanner.set("1.2.9", None, a_series("1.2.5", "1.2.6")).Status == 0
        assert steps_with(store, ["1.2.5"]) == [Step(Status.IN_PROGRESS, {"1.2.5": frozenset(["1.2.6"])})]
        assert scanner.set("1.2.9", "COMPLETED", a_series("1.2.5", "1.2.6", "1.2.7"), a_series("1.2.8")).Status == 0
        over = Step(Status.COMPLETED, {"1.2.5": frozenset(["1.2.6", "1.2.7"]), "1.2.8": frozenset()})
        assert steps_with(Store(store.path), ["1.2.8"]) == [over]
        for status in ("IN PROGRESS", "COMPLETED", "DISCONTINUED", None):
            answer = scanner.set("1.2.9", status, a_series("1.2.5"))
            assert (answer.Status, answer.ErrorID) == (FAILURE, NO_LONGER_UPDATED)
        assert steps_with(store, ["1.2.5"]) == [over]
        assert b"Doe" not in store.path.read_bytes() + Path(f"{store.path}-wal").read_bytes()


def test_a_series_that_was_told_stays_when_the_end_does_not_repeat_it(tmp_path: Path, store: Store) -> None:
    with told_node(tmp_path, store, Right.MPPS) as node, a_modality(node) as scanner:
        scanner.create("1.2.9", "IN PROGRESS", a_series("1.2.5", "1.2.6"))
        assert scanner.set("1.2.9", "DISCONTINUED").Status == 0
        assert steps_with(store, ["1.2.5"]) == [Step(Status.DISCONTINUED, {"1.2.5": frozenset(["1.2.6"])})]


def test_what_is_none_is_answered_as_what_it_is(tmp_path: Path, store: Store) -> None:
    with told_node(tmp_path, store, Right.MPPS) as node, a_modality(node) as scanner:
        assert scanner.set().Status == UNKNOWN
        assert scanner.create("1.2.9", None).Status == MISSING
        assert scanner.create("1.2.9", "COMPLETED").Status == INVALID_VALUE
        assert scanner.create("1.2.9", "IN PROGRESS", a_series("")).Status == INVALID_VALUE
        assert scanner.create("none").Status == INVALID_INSTANCE
        assert scanner.create().Status == 0
        assert scanner.set("1.2.9", "OVER").Status == INVALID_VALUE
        assert scanner.set("1.2.9", "COMPLETED", a_series("1.2.5", "x")).Status == INVALID_VALUE
        assert scanner.set("1.2.9", "COMPLETED").Status == 0


def test_only_who_may_is_listened_to(tmp_path: Path, store: Store) -> None:
    with told_node(tmp_path, store, Right.STORE) as node, a_modality(node) as scanner:
        assert scanner.create().Status == scanner.set().Status == NOT_AUTHORISED
    assert store.rows("SELECT * FROM procedure_steps") == []


def test_what_was_long_ago_is_forgotten(tmp_path: Path, store: Store) -> None:
    clock = Clock()
    with told_node(tmp_path, store, Right.MPPS, clock=clock) as node, a_modality(node) as scanner:
        scanner.create("1.2.9", "IN PROGRESS", a_series("1.2.5", "1.2.6"))
        clock.now += KEPT + 1
        scanner.create("1.2.10")
    assert [row["sop_instance_uid"] for row in store.rows("SELECT * FROM procedure_steps")] == ["1.2.10"]
    assert store.rows("SELECT * FROM performed_series") == []


def test_a_study_that_waits_goes_on_when_its_step_is_completed(tmp_path: Path, store: Store) -> None:
    images = [replace(image, received_at=1000.0) for image in scan(CLASSIC, study=STUDY)]
    for image in images:
        store.add_instance(image)
    still_open = frozenset(["1"])

    def look() -> list[State]:
        regroup(store, group, 1001.0, QUIET, still_open)
        return [job.state for job in store.jobs()]

    assert look() == [State.WAITING]
    series = {image.series_instance_uid for image in images}
    made = [a_series(one, *(i.sop_instance_uid for i in images if i.series_instance_uid == one)) for one in series]
    with told_node(tmp_path, store, Right.MPPS) as node, a_modality(node) as scanner:
        scanner.create()
        assert look() == [State.WAITING]
        scanner.set("1.2.9", "COMPLETED", *made)
    assert look() == [State.READY]
    assert store.open_studies() == []


def test_a_step_that_ends_has_its_study_looked_at_again(tmp_path: Path, store: Store) -> None:
    store.add_instance(an_instance())
    [(study, arrivals)] = store.open_studies()
    store.settle_study(study, arrivals)
    with told_node(tmp_path, store, Right.MPPS) as node, a_modality(node) as scanner:
        scanner.create()
        scanner.set("1.2.9", "COMPLETED", a_series(f"{STUDY}.4"))
    assert [study for study, _ in store.open_studies()] == [STUDY]


def test_a_scan_of_which_the_end_is_missing_is_not_made_before_it_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its step, what has come looks whole, is made, and made again when the rest comes."""
    whole = write_siemens(simple_head(1, shape=(8, 8, 5)), tmp_path / "study")
    headers = {path: dcmread(path, stop_before_pixels=True) for path in whole}
    end = max(header.SliceLocation for header in headers.values())
    first = [path for path in whole if headers[path].SliceLocation < end]
    assert 0 < len(first) < len(whole)
    config = a_config(tmp_path, quiet_time=600.0)
    peer = {"name": "scanner", "ae_title": "SCANNER", "address": "127.0.0.1", "may": ["store", "mpps"]}
    config = Config.model_validate({**config.model_dump(by_alias=True), "peer": [peer]})
    with serving(config, monkeypatch) as daemon:
        us = Destination("node", "127.0.0.1", daemon.receiver.port, "QSMNODE")
        made: dict[str, list[str]] = {}
        for header in headers.values():
            made.setdefault(header.SeriesInstanceUID, []).append(header.SOPInstanceUID)
        with associate([build_context(MPPS)], us, SendSettings("SCANNER")) as association:
            scanner = Modality(association)
            scanner.create(study=next(iter(headers.values())).StudyInstanceUID)
            assert scanner.set("1.2.9", "COMPLETED", *(a_series(uid, *of) for uid, of in made.items())).Status == 0
        list(send(first, us, SendSettings("SCANNER")))
        wait_until(lambda: [job.state for job in daemon.store.jobs()] == [State.WAITING], "what came waits")
        list(send([path for path in whole if path not in first], us, SendSettings("SCANNER")))
        wait_until(lambda: [job.state for job in daemon.store.jobs()] == [State.RECONSTRUCTED], "it is made", 60)
        [job] = daemon.store.jobs()
        assert (job.revision, len(job.images)) == (1, len(whole))
