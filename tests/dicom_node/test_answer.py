"""Query and retrieve over real associations, dcmtk's above all: sources and results, to whom it may concern."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RLELossless, SegmentationStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import build_context

from demo.archive import Archive
from dicom_node.answer import NOT_YET, _dataset, _read
from dicom_node.call import Destination, SendSettings, associate
from dicom_node.catalogue import Catalogue
from dicom_node.checkpoint import install_checkpoint
from dicom_node.peers import Peer, Right
from dicom_node.states import State
from dicom_node.tls import Identity
from tests.certificates import Authority
from tests.dicom_node.library import ALL, FIND, GET, MOVE, Library, get, made
from tests.objects import STUDY, mr_image, with_meta, write
from tests.peers import free_port, running_storescp, wait_until

Dcmtk = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def move_port() -> int:
    return free_port()


@pytest.fixture
def library(tmp_path: Path, move_port: int) -> Iterator[Library]:
    library = Library(
        tmp_path / "state",
        Peer("archive", "STORESCP", "127.0.0.1", frozenset(), move_port),
        Peer("scanner", "SCANNER", "127.0.0.1", frozenset({Right.STORE})),
    )
    library.receiver.start()
    library.index.start()
    images = [mr_image(number) for number in (1, 2, 3)]
    images[0].PatientName = images[1].PatientName = images[2].PatientName = "Nobody^Test"
    library.take(write(tmp_path / "scan", *images))
    try:
        yield library
    finally:
        library.receiver.stop()
        library.index.stop()


@pytest.fixture
def dcmtk(storescu_command: Path) -> Dcmtk:
    def run(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        line = [str(storescu_command.with_name(command)), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60)

    return run


def find(
    library: Library, level: str, model: str = FIND, calling: str = "WORKSTATION", **keys: object
) -> list[Dataset]:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    association = AE(calling).associate(
        "127.0.0.1",
        library.receiver.port,
        contexts=[build_context(model)],
        ae_title="QSMNODE",
        evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)],
    )
    answers = list(association.send_c_find(query, model))
    association.release()
    last = answers[-1][0]
    assert last.Status == 0x0000, f"0x{last.Status:04X} {last.get('ErrorComment', '')}"
    return [identifier for status, identifier in answers if status.Status == 0xFF00 and identifier is not None]


def test_every_level_is_found_with_its_counts(library: Library) -> None:
    result = library.make_a_result()
    [study] = find(
        library, "STUDY", PatientID="TEST", StudyInstanceUID="", ModalitiesInStudy="", NumberOfStudyRelatedInstances=""
    )
    assert (study.StudyInstanceUID, study.NumberOfStudyRelatedInstances) == (STUDY, 4)
    assert sorted(study.ModalitiesInStudy) == ["MR", "SEG"]
    assert (study.RetrieveAETitle, study.SpecificCharacterSet) == ("QSMNODE", "ISO_IR 192")
    series = find(library, "SERIES", StudyInstanceUID=STUDY, Modality="", NumberOfSeriesRelatedInstances="")
    assert {(one.Modality, one.NumberOfSeriesRelatedInstances) for one in series} == {("MR", 3), ("SEG", 1)}
    images = find(library, "IMAGE", StudyInstanceUID=STUDY, InstanceNumber="", EchoTime="", PatientComments="")
    assert {one.InstanceNumber for one in images} == {1, 2, 3, 101}
    assert {one.SOPInstanceUID for one in images} > {result.SOPInstanceUID}
    assert images[0].PatientComments == "", "what is not known is returned empty"
    [patient] = find(library, "PATIENT", "1.2.840.10008.5.1.4.1.2.1.1", PatientID="", PatientName="nobody*")
    assert str(patient.PatientName) == "Nobody^Test"


def test_nothing_is_found_that_does_not_match(library: Library) -> None:
    assert find(library, "STUDY", PatientID="OTHER", StudyInstanceUID="") == []
    assert find(library, "STUDY", StudyInstanceUID="1.2.3") == []
    assert find(library, "IMAGE", StudyInstanceUID=STUDY, InstanceNumber="9") == []
    assert len(find(library, "IMAGE", StudyInstanceUID=STUDY, InstanceNumber="2")) == 1
    uids = [mr_image(1).SOPInstanceUID, mr_image(2).SOPInstanceUID]
    assert len(find(library, "IMAGE", SOPInstanceUID=uids)) == 2


def test_a_level_that_the_model_does_not_have_is_an_error(library: Library) -> None:
    with pytest.raises(AssertionError, match="0xA900"):
        find(library, "PATIENT", PatientID="")
    with pytest.raises(AssertionError, match="0xA900"):
        find(library, "BODY", PatientID="")
    with pytest.raises(AssertionError, match="0x0124"):
        find(library, "STUDY", calling="SCANNER", PatientID="")


def test_what_is_gone_is_found_no_more(library: Library, tmp_path: Path) -> None:
    library.make_a_result()
    shutil.rmtree(library.jobs / "1")
    library.store.remove_instances([str(path) for path in library.spool.images()][:1])
    library.catalogue()
    assert len(find(library, "IMAGE", StudyInstanceUID=STUDY)) == 2
    library.store.remove_instances([str(path) for path in library.spool.images()])
    library.catalogue()
    assert find(library, "STUDY", StudyInstanceUID="") == []


def test_nothing_is_answered_by_a_list_that_is_still_being_made(library: Library) -> None:
    """A part of a study, with success, would be taken for all of it."""
    answerer = library.answerer
    answerer._catalogue = begun = Catalogue(library.store, library.jobs)
    with pytest.raises(AssertionError, match="0xA700 the images here are still being listed: ask again in a while"):
        find(library, "STUDY", PatientID="TEST")
    got, last, _ = get(library, StudyInstanceUID=STUDY)
    assert (got, last.Status, last.ErrorComment) == ([], 0xA701, NOT_YET)
    begun()
    assert len(find(library, "STUDY", PatientID="TEST")) == 1
    assert len(get(library, StudyInstanceUID=STUDY)[0]) == 3


def test_an_identifier_that_cannot_be_read_is_an_error() -> None:
    tag = Tag("StudyInstanceUID")
    event: Any = SimpleNamespace(
        request=SimpleNamespace(Identifier=BytesIO(b"")),
        identifier=Dataset({tag: RawDataElement(tag, "ZZ", 4, b"1.2 ", 0, False, True)}),
        assoc=SimpleNamespace(requestor=SimpleNamespace(ae_title="WORKSTATION")),
    )
    assert _read(event)[0] == 0xC000


def test_a_wild_card_retrieves_nothing(library: Library) -> None:
    patient_root_get = "1.2.840.10008.5.1.4.1.2.1.3"
    for wanted in ("T*", "*", "????", "\\"):
        assert get(library, level="PATIENT", model=patient_root_get, PatientID=wanted)[0] == [], wanted
    assert len(get(library, level="PATIENT", model=patient_root_get, PatientID="TEST")[0]) == 3


def test_one_header_does_not_keep_the_others_out(library: Library, tmp_path: Path) -> None:
    """pydicom decodes values when they are looked at, and raises whatever they provoke."""
    before = len(find(library, "IMAGE", StudyInstanceUID=STUDY))
    endless, odd, plain = (mr_image(number) for number in (20, 21, 22))
    job = made(library, 1, endless, odd, plain)
    files = sorted((library.jobs / str(job)).rglob("*.dcm"))
    for file, good, bad in (
        (files[0], b"\x20\x00\x13\x00IS\x02\x0020", b"\x20\x00\x13\x00IS\x06\x001e400 "),
        (files[1], b"\x28\x00\x10\x00US\x02\x00\x04\x00", b"\x28\x00\x10\x00US\x03\x00\x04\x00\x00"),
    ):
        assert good in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(good, bad))
    library.catalogue()
    images = find(library, "IMAGE", StudyInstanceUID=STUDY, InstanceNumber="", Rows="")
    assert len(images) == before + 3, "what can be told of them is told"
    told = {one.SOPInstanceUID: one for one in images}
    assert told[endless.SOPInstanceUID].InstanceNumber is None
    assert told[odd.SOPInstanceUID].Rows is None
    assert told[plain.SOPInstanceUID].Rows == 4


def test_numbers_are_told_as_numbers_and_what_is_none_is_empty(library: Library) -> None:
    images = find(library, "IMAGE", StudyInstanceUID=STUDY, Rows="", Columns="", InstanceNumber="", EchoTime="")
    assert [(one.Rows, one.Columns, one.EchoTime) for one in images] == [(4, 6, 4.0)] * 3
    library.store.database.execute(
        "UPDATE held_images SET attributes = json_set(attributes, '$.InstanceNumber', 'abc', '$.Rows', '70000')"
    )
    images = find(library, "IMAGE", StudyInstanceUID=STUDY, Rows="", InstanceNumber="")
    assert [(one.Rows, one.InstanceNumber) for one in images] == [(None, None)] * 3


def test_a_result_that_is_run_again_is_withdrawn_until_it_is_made(library: Library) -> None:
    """Run again it may fail in quality; its new files then lie where the old ones lay."""
    library.make_a_result()
    assert library.store.run_again(library.sent(1), 3.0)
    assert held(library) == 3, "before the next round as well"
    library.catalogue()
    assert len(find(library, "IMAGE", StudyInstanceUID=STUDY)) == 3
    library.store.advance(1, State.READY, State.RECONSTRUCTING, 4.0)
    library.store.advance(1, State.RECONSTRUCTING, State.REVIEW, 5.0)
    library.catalogue()
    assert (held(library), len(find(library, "IMAGE", StudyInstanceUID=STUDY))) == (3, 3)
    library.store.advance(1, State.REVIEW, State.READY, 6.0)
    library.store.advance(1, State.READY, State.RECONSTRUCTING, 7.0)
    library.store.advance(1, State.RECONSTRUCTING, State.RECONSTRUCTED, 8.0)
    library.catalogue()
    assert (held(library), len(find(library, "IMAGE", StudyInstanceUID=STUDY))) == (4, 4)


def test_a_series_or_a_study_that_comes_again_under_another_name_is_left_out(library: Library) -> None:
    """Else one patient's images would be found, and handed out, as another's."""
    elsewhere, somebody_else = mr_image(30), mr_image(31)
    elsewhere.StudyInstanceUID, elsewhere.PatientID = f"{STUDY[:-4]}.9", "OTHER"
    somebody_else.PatientID, somebody_else.SeriesInstanceUID = "OTHER", "1.2.3.4"
    made(library, 1, elsewhere, somebody_else)
    with structlog.testing.capture_logs() as logged:
        library.catalogue()
    assert [line["reason"] for line in logged if line["event"] == "not_catalogued"] == [
        f"its series is held as one of study {STUDY}",
        "its study is held as that of another patient",
    ]
    assert len(find(library, "IMAGE", StudyInstanceUID="", PatientID="")) == 3
    assert find(library, "STUDY", PatientID="OTHER", StudyInstanceUID="") == [], "no study without images"


def test_a_patient_is_found_by_what_any_study_tells(library: Library) -> None:
    for number, name in ((40, "Aaron^A"), (41, "Zoe^Z")):
        image = mr_image(number)
        image.PatientName, image.StudyInstanceUID, image.SeriesInstanceUID = name, f"1.2.{number}", f"1.2.{number}.1"
        made(library, number, image)
    library.catalogue()
    root = "1.2.840.10008.5.1.4.1.2.1.1"
    for name in ("Aaron*", "Nobody*", "Zoe*"):
        [patient] = find(library, "PATIENT", root, PatientID="", PatientName=name, NumberOfPatientRelatedStudies="")
        assert (patient.PatientID, patient.NumberOfPatientRelatedStudies) == ("TEST", 3)
        assert str(patient.PatientName).startswith(name[:-1])
    assert len(find(library, "PATIENT", root, PatientID="TEST")) == 1


def test_a_start_reads_only_what_it_does_not_hold(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.make_a_result()
    read: list[Path] = []

    def reading(path: Path, **keywords: Any) -> Dataset:
        read.append(path)
        return dcmread(path, **keywords)

    monkeypatch.setattr("dicom_node.catalogue.dcmread", reading)
    Catalogue(library.store, library.jobs)()
    assert read == []
    made(library, 2, mr_image(50))
    Catalogue(library.store, library.jobs)()
    assert [path.parts[-4] for path in read] == ["2"]


@pytest.mark.parametrize("ends", ["to the end", "in between"])
def test_a_job_that_is_run_again_takes_nothing_from_who_retrieves_its_results(library: Library, ends: str) -> None:
    """The folder is replaced when the first object has gone out; a file of the same name holds another one then."""
    results = [mr_image(number) for number in (101, 102, 103)]
    job = made(library, 1, *results)
    library.catalogue()
    folder = library.jobs / str(job) / "result" / "dicom"
    wanted = {str(result.SOPInstanceUID) for result in results}
    got: list[str] = []

    def take(event: evt.Event) -> int:
        if not got:
            shutil.rmtree(folder.parent)
            write(folder, *(mr_image(number) for number in (201, 202, 203)))
        got.append(str(event.dataset.SOPInstanceUID))
        if ends == "in between":
            event.assoc.abort()
        return 0x0000

    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "IMAGE", STUDY
    query.SeriesInstanceUID, query.SOPInstanceUID = str(results[0].SeriesInstanceUID), sorted(wanted)
    target = Destination("node", "127.0.0.1", library.receiver.port, "QSMNODE")
    contexts = [build_context(GET), build_context(MRImageStorage, ExplicitVRLittleEndian)]
    roles = [build_role(MRImageStorage, scp_role=True)]
    handlers = [(evt.EVT_C_STORE, take)]
    settings = SendSettings("WORKSTATION", response_timeout=1.0)
    with associate(contexts, target, settings, roles=roles, handlers=handlers) as association:
        answers = [status.get("Status") for status, _ in association.send_c_get(query, GET)]
    if ends == "to the end":
        assert (set(got), answers[-1]) == (wanted, 0x0000)
    wait_until(lambda: not list((library.jobs.parent / "handing-out").iterdir()), "nothing is kept any longer")


def test_what_lies_under_the_name_of_another_object_is_not_handed_out(library: Library) -> None:
    result = library.make_a_result()
    query = Dataset()
    query.SOPInstanceUID = str(result.SOPInstanceUID)
    [one] = library.catalogue.select("IMAGE", query)
    write(one.path.parent, mr_image(200))
    with structlog.testing.capture_logs() as told:
        failing = _dataset(one)
    assert failing.SOPInstanceUID == one.sop_instance_uid
    assert "PixelData" not in failing
    assert [entry["error"] for entry in told] == ["it holds another object"]


def test_what_a_killed_node_was_handing_out_is_swept(library: Library) -> None:
    left = library.jobs.parent / "handing-out" / "x"
    left.mkdir(parents=True)
    library.catalogue.sweep()
    library.catalogue.sweep()
    assert not left.exists()


def held(library: Library) -> int:
    query = Dataset()
    query.StudyInstanceUID = STUDY
    return len(library.catalogue.select("STUDY", query))


@pytest.mark.dcmtk
def test_findscu(library: Library, dcmtk: Dcmtk) -> None:
    answer = dcmtk("findscu", "-v", "-S", *library.address, "-k", "0008,0052=STUDY", "-k", "0010,0020=TE*")
    assert answer.returncode == 0, answer.stderr
    assert "Find Response: 1 (Pending)" in answer.stderr + answer.stdout


@pytest.mark.dcmtk
@pytest.mark.parametrize(
    ("keys", "count"),
    [
        (["0008,0052=STUDY", f"0020,000d={STUDY}"], 4),
        (["0008,0052=IMAGE", f"0020,000d={STUDY}", f"0008,0018={mr_image(2).SOPInstanceUID}"], 1),
        (["0008,0052=STUDY", "0020,000d=1.2.3"], 0),
    ],
)
def test_getscu(library: Library, dcmtk: Dcmtk, tmp_path: Path, keys: list[str], count: int) -> None:
    library.make_a_result()
    (tmp_path / "got").mkdir()
    options = [part for key in keys for part in ("-k", key)]
    answer = dcmtk("getscu", "-v", "-S", "-od", tmp_path / "got", *library.address, *options)
    assert answer.returncode == 0, answer.stderr
    got = [dcmread(path) for path in (tmp_path / "got").iterdir()]
    assert len(got) == count
    for image in got:
        if image.SOPClassUID == MRImageStorage:
            assert image.PixelData == mr_image(int(image.InstanceNumber)).PixelData


@pytest.mark.dcmtk
def test_movescu_to_a_known_peer(library: Library, dcmtk: Dcmtk, tmp_path: Path, move_port: int) -> None:
    library.make_a_result()
    command = Path(str(dcmtk("storescp", "--version").args[0]))
    keys = ["-k", "0008,0052=STUDY", "-k", f"0020,000d={STUDY}"]
    with running_storescp(command, tmp_path / "in", "-d", port=move_port):
        library.answerer._catalogue = Catalogue(library.store, library.jobs)
        early = dcmtk("movescu", "-d", "-S", "-aem", "STORESCP", *library.address, *keys)
        library.answerer._catalogue = library.catalogue
        answer = dcmtk("movescu", "-v", "-S", "-aem", "STORESCP", *library.address, *keys)
    assert "0xa701" in early.stderr + early.stdout, "the list is still being made: no part of it is moved"
    assert answer.returncode == 0, answer.stderr
    assert len(list((tmp_path / "in").iterdir())) == 4
    assert "Received Final Move Response (Success)" in answer.stderr + answer.stdout
    told = (tmp_path / "in.log").read_text()
    assert told.count("Association Acknowledged") == 1, "what is refused calls nobody"
    assert re.findall(r"Move Originator AE Title +: (\w+)", told) == ["WORKSTATION"] * 4, "who asked, not we"
    [handed] = library.handed
    assert (len(handed.stored), list(handed.failed), handed.why) == (4, [], "")
    assert (handed.caller.ae_title, handed.destination.ae_title) == ("WORKSTATION", "STORESCP")


@pytest.mark.parametrize("limited", ["workstation", "archive"])
def test_a_move_hands_out_only_what_caller_and_destination_may_have(tmp_path: Path, limited: str) -> None:
    classes = {limited: frozenset({SegmentationStorage})}
    with Archive(tmp_path / "archive", ae_title="PACS") as archive:
        of = {name: classes.get(name, frozenset()) for name in ("workstation", "archive")}
        viewer = Peer("viewer", "VIEWER", "127.0.0.1", ALL, sop_classes=of["workstation"])
        to = Peer("archive", "PACS", "127.0.0.1", frozenset(), archive.port, sop_classes=of["archive"])
        library = Library(tmp_path / "state", viewer, to)
        library.receiver.start()
        library.index.start()
        try:
            library.take(write(tmp_path / "scan", mr_image(1)))
            result = library.make_a_result()
            query = Dataset()
            query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", STUDY
            node = Destination("node", "127.0.0.1", library.receiver.port, "QSMNODE")
            with associate([build_context(MOVE)], node, SendSettings("VIEWER")) as association:
                *_, (status, named) = association.send_c_move(query, "PACS", MOVE)
            assert set(archive.paths) == {result.SOPInstanceUID}
            assert (status.Status, status.NumberOfFailedSuboperations) == (0xB000, 1)
            assert named is not None
            assert named.FailedSOPInstanceUIDList == mr_image(1).SOPInstanceUID
            [handed] = library.handed
            assert [one.sop_instance_uid for one in handed.stored] == [result.SOPInstanceUID]
            assert [one.sop_instance_uid for one in handed.failed] == [mr_image(1).SOPInstanceUID]
        finally:
            library.receiver.stop()
            library.index.stop()


@pytest.mark.dcmtk
@pytest.mark.parametrize("to", ["NOBODY", "SCANNER", "STORESCP"])
def test_movescu_to_nobody_is_told_so(library: Library, dcmtk: Dcmtk, to: str) -> None:
    """One that is no peer, one that listens nowhere, and one that is not there at present."""
    keys = ["-k", "0008,0052=STUDY", "-k", f"0020,000d={STUDY}"]
    answer = dcmtk("movescu", "-v", "-S", "-aem", to, *library.address, *keys)
    assert "MoveDestinationUnknown" in answer.stderr + answer.stdout
    if to == "STORESCP":
        wait_until(lambda: library.handed, "what was not moved is told")
        [handed] = library.handed
        assert (list(handed.stored), len(handed.failed)) == ([], 3)
        assert "took no TCP connection: Connection refused" in handed.why
    else:
        assert library.handed == []


@pytest.mark.parametrize("answered", [0x0000, 0xB000, 0x0110, 0x0122, 0xA700])
def test_what_is_told_as_handed_out_is_what_was_stored(library: Library, answered: int) -> None:
    """As counted in the response.  0x0110 is a status that pynetdicom has no place for."""
    result, second = library.make_a_result(), str(mr_image(2).SOPInstanceUID)
    with structlog.testing.capture_logs() as logged:
        got, last, identifier = get(library, answers={second: answered}, StudyInstanceUID=STUDY)
        wait_until(lambda: library.handed, "it is told")
    is_kept = answered in (0x0000, 0xB000)
    lost = {str(result.SOPInstanceUID), *([] if is_kept else [second])}
    [handed] = library.handed
    assert {one.sop_instance_uid for one in handed.failed} == lost
    assert {one.sop_instance_uid for one in handed.stored} == {str(image.SOPInstanceUID) for image in got} - lost
    assert last.NumberOfFailedSuboperations == len(lost)
    assert identifier is not None
    assert "No presentation context for 'Segmentation Storage'" in handed.why, "it was not proposed"
    assert (f"0x{answered:04X} (1)" in handed.why) is not is_kept
    [line] = [line for line in logged if line["event"] == "handed_out"]
    assert (line["log_level"], line["stored"], line["failed"]) == ("warning", 4 - len(lost), len(lost))


def test_each_retrieve_over_an_association_is_told_of_once(library: Library) -> None:
    target = Destination("node", "127.0.0.1", library.receiver.port, "QSMNODE")
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", STUDY
    contexts = [build_context(GET), build_context(MRImageStorage, ExplicitVRLittleEndian)]
    roles, handlers = [build_role(MRImageStorage, scp_role=True)], [(evt.EVT_C_STORE, lambda event: 0x0000)]
    with associate(contexts, target, SendSettings("WORKSTATION"), roles=roles, handlers=handlers) as association:
        for _ in range(2):
            *_, (status, _) = association.send_c_get(query, GET)
            assert status.Status == 0x0000
    assert [(len(handed.stored), len(handed.failed)) for handed in library.handed] == [(3, 0), (3, 0)]


def test_a_file_that_is_gone_is_named_as_failed(library: Library) -> None:
    gone = library.store.paths([mr_image(2).SOPInstanceUID])[0]
    Path(gone).unlink()
    got, last, identifier = get(library, StudyInstanceUID=STUDY)
    assert (len(got), last.Status, last.NumberOfFailedSuboperations) == (2, 0xB000, 1)
    assert identifier is not None
    assert identifier.FailedSOPInstanceUIDList == mr_image(2).SOPInstanceUID
    [handed] = library.handed
    assert (len(handed.stored), handed.why) == (2, "its file is gone or damaged (1)")


def test_a_peer_that_goes_in_between_has_not_what_was_not_stored(library: Library, tmp_path: Path) -> None:
    """What it has had no answer for, and what was never sent."""
    library.take(write(tmp_path / "more", *(mr_image(number) for number in range(10, 20))))
    got: list[str] = []

    def take(event: evt.Event) -> int:
        got.append(str(event.request.AffectedSOPInstanceUID))
        if len(got) == 3:
            event.assoc.abort()
        return 0x0000

    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", STUDY
    target = Destination("node", "127.0.0.1", library.receiver.port, "QSMNODE")
    contexts = [build_context(GET), build_context(MRImageStorage, ExplicitVRLittleEndian)]
    roles, handlers = [build_role(MRImageStorage, scp_role=True)], [(evt.EVT_C_STORE, take)]
    settings = SendSettings("WORKSTATION", response_timeout=1.0)
    with associate(contexts, target, settings, roles=roles, handlers=handlers) as association:
        list(association.send_c_get(query, GET))
    wait_until(lambda: library.handed, "it is told")
    [handed] = library.handed
    assert [one.sop_instance_uid for one in handed.stored] == got[:2]
    assert len(handed.failed) == 11


def test_a_retrieve_without_its_unique_key_is_an_error(library: Library) -> None:
    assert get(library)[1].Status == 0xA900


def test_no_part_of_a_request_becomes_a_path(library: Library, tmp_path: Path) -> None:
    got, last, _ = get(library, StudyInstanceUID="../../../../etc/passwd")
    assert (got, last.Status) == ([], 0x0000)


def test_a_cancelled_retrieve_ends_early(library: Library, tmp_path: Path) -> None:
    library.take(write(tmp_path / "more", *(mr_image(number) for number in range(10, 60))))
    got, last, _ = get(library, cancel_after=3, StudyInstanceUID=STUDY)
    assert last.Status == 0xFE00
    assert len(got) < 50
    [handed] = library.handed
    assert (len(handed.stored), handed.failed) == (len(got), []), "what nobody wants any longer did not fail"


def test_compressed_images_are_handed_out_as_they_are(library: Library, tmp_path: Path) -> None:
    image = with_meta(mr_image(7, rows=64, columns=48), ExplicitVRLittleEndian)
    image.compress(RLELossless, generate_instance_uid=False)
    image.save_as(tmp_path / "compressed.dcm", enforce_file_format=True)
    library.take([tmp_path / "compressed.dcm"])
    got, last, _ = get(library, level="IMAGE", SOPInstanceUID=image.SOPInstanceUID, syntax=RLELossless)
    assert last.Status == 0x0000
    assert got[0].file_meta.TransferSyntaxUID == RLELossless
    assert get(library, level="IMAGE", SOPInstanceUID=image.SOPInstanceUID)[1].NumberOfFailedSuboperations == 1


@pytest.mark.dcmtk
def test_a_peer_with_a_certificate_is_moved_to_over_tls(
    dcmtk: Dcmtk, tmp_path: Path, move_port: int, storescu_command: Path
) -> None:
    authority = Authority.make(tmp_path / "hospital")
    theirs = authority.sign("archive.example")
    archive = Peer("archive", "STORESCP", "127.0.0.1", frozenset(), move_port, certificate="archive.example")
    keys = ["-k", "0008,0052=STUDY", "-k", f"0020,000d={STUDY}"]
    options = ["+tls", str(theirs.key), str(theirs.certificate), "+cf", str(theirs.authorities)]
    library = Library(tmp_path / "state", archive, tls=Identity(authority.sign("node.example")))
    library.receiver.start()
    library.index.start()
    try:
        library.take(write(tmp_path / "scan", mr_image(1), mr_image(2)))
        with running_storescp(storescu_command.with_name("storescp"), tmp_path / "in", *options, port=move_port):
            answer = dcmtk("movescu", "-v", "-S", "-aem", "STORESCP", *library.address, *keys)
    finally:
        library.receiver.stop()
        library.index.stop()
    assert answer.returncode == 0, answer.stderr
    assert len(list((tmp_path / "in").iterdir())) == 2
