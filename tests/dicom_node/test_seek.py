"""What of an archive is worth fetching, given what it tells at image level."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage
from pynetdicom import AE, evt

from dicom_node.call import Destination, SendSettings
from dicom_node.errors import PeerFailure
from dicom_node.seek import FIND, UNTOLD, Wanted, _readable, _studies, judge, seek
from tests.peers import free_port


def told(count: int = 4, echoes: Sequence[float] = (), **keys: object) -> list[Dataset]:
    """What an archive answers for a series: `count` images of each echo."""
    images = []
    for echo in echoes or [None]:
        for _ in range(count):
            image = Dataset()
            image.SOPClassUID = MRImageStorage
            if echo is not None:
                image.EchoTime = echo
            for keyword, value in keys.items():
                setattr(image, keyword, value)
            images.append(image)
    return images


def alone(images: list[Dataset]) -> str:
    return judge({"a": images})["a"]


def test_several_echoes_in_one_series_are_worth_it() -> None:
    assert alone(told(echoes=(4, 8))) == ""
    assert alone(told(echoes=(4, 8), ScanningSequence="GR", ImageType=["ORIGINAL", "PRIMARY", "P"])) == ""
    assert alone(told(echoes=(4, 8), ScanningSequence="RM")) == "", "Philips and GE write it"
    assert alone(told(EchoTime=["4", "8"])) == "", "told in one answer"


def test_echoes_in_series_of_their_own_are_worth_it_together() -> None:
    assert judge({"a": told(echoes=(4,)), "b": told(echoes=(8,))}) == {"a": "", "b": ""}
    assert judge({"a": told(echoes=(4,)), "b": told(count=9, echoes=(8,))}) == {
        "a": "one echo, 4.0 ms",
        "b": "one echo, 8.0 ms",
    }, "not of the same size"
    assert judge({"a": told(echoes=(4,)), "b": told(echoes=(8,), ScanningSequence="SE")})["a"] == "one echo, 4.0 ms"


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (told(echoes=(4,)), "one echo, 4.0 ms"),
        (told(count=1, echoes=(4, 8)), "2 images"),
        (told(echoes=(4, 8), ImageType=["DERIVED", "PRIMARY"]), "derived or localiser"),
        (told(echoes=(4, 8), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "derived or localiser"),
        (told(echoes=(4, 8), ScanningSequence="SE"), "its scanning sequence is SE"),
        (told(echoes=(4, 8), ScanningSequence=["SE", "IR"]), "its scanning sequence is SE/IR"),
        (told(echoes=(4, 8), ScanningSequence=["EP", "GR"]), "echo-planar"),
        (told(), UNTOLD),
        ([], UNTOLD),
    ],
)
def test_what_speaks_against_a_series_is_told(images: list[Dataset], why: str) -> None:
    assert alone(images) == why


def test_an_enhanced_object_hides_its_echoes_and_is_fetched() -> None:
    assert alone(told(count=1, SOPClassUID=EnhancedMRImageStorage)) == ""
    assert alone(told(count=1, SOPClassUID=EnhancedMRImageStorage, EchoPulseSequence="GRADIENT")) == ""
    assert alone(told(count=1, SOPClassUID=EnhancedMRImageStorage, EchoPulseSequence="SPIN")) == "its echoes are SPIN"


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize(
    ("value", "why"),
    [(b"4\\8", ""), (b"4\\abc ", "one echo, 4.0 ms"), (b"?", UNTOLD), (b"nan ", UNTOLD)],
)
def test_echo_times_as_archives_tell_them(value: bytes, why: str) -> None:
    images = told()
    for image in images:
        image[0x00180081] = RawDataElement(Tag(0x00180081), "DS", len(value), value, 0, False, True)
    assert alone([_readable(image) for image in images]) == why


STUDY, SERIES = "1.2.3", "1.2.3.4"


class Archive:
    """Answers each C-FIND by its level with what it was given; `waits` holds an answer back."""

    def __init__(self, answers: dict[str, list[Dataset]], waits: threading.Event | None = None) -> None:
        def find(event: evt.Event) -> Iterator[tuple[int, Dataset]]:
            self.asked += 1
            if waits is not None:
                waits.wait(20)
            for answer in answers[event.identifier.QueryRetrieveLevel]:
                yield 0xFF00, answer

        self.asked = 0
        entity = AE("PACS")
        entity.add_supported_context(FIND)
        port = free_port()
        self.destination = Destination("pacs", "127.0.0.1", port, "PACS")
        self.server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()


def an_answer(**keys: object) -> Dataset:
    answer = Dataset()
    for keyword, value in keys.items():
        setattr(answer, keyword, value)
    return answer


def test_odd_answers_are_those_of_an_archive_that_does_not_tell() -> None:
    answers = {
        "STUDY": [an_answer(StudyDate="20240229"), an_answer(StudyInstanceUID=STUDY)],
        "SERIES": [an_answer(SeriesNumber=1), an_answer(SeriesInstanceUID=SERIES)],
        "IMAGE": told(EchoTime=["4", "8"]),
    }
    with Archive(answers) as archive:
        [found] = seek(Wanted(), archive.destination, SendSettings())
        assert (found.study_instance_uid, found.series_instance_uid, found.against) == (STUDY, SERIES, "")
        answers["IMAGE"] = []
        [found] = seek(Wanted(), archive.destination, SendSettings())
        assert found.against == UNTOLD
        [found] = seek(Wanted(study=STUDY), archive.destination, SendSettings())
        assert found.against == "", "its study is named"


def test_a_value_that_cannot_be_read_was_not_told() -> None:
    answer = an_answer(SOPClassUID=MRImageStorage)
    answer[0x00180081] = RawDataElement(Tag(0x00180081), "XX", 2, b"4 ", 0, False, True)
    assert list(_readable(answer).keys()) == [0x00080016]


def test_a_node_that_stops_does_not_wait_for_a_slow_archive() -> None:
    over = threading.Event()
    with Archive({"STUDY": []}, over) as archive:
        try:
            with pytest.raises(PeerFailure, match="broke off"):
                list(seek(Wanted(), archive.destination, SendSettings(), lambda: archive.asked > 0))
        finally:
            over.set()


def test_answers_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.seek.MOST_ANSWERS", 5)
    answers = [an_answer(StudyInstanceUID=f"1.2.{number}") for number in range(7)]
    with Archive({"STUDY": answers}) as archive, pytest.raises(PeerFailure, match="fewer days"):
        list(seek(Wanted(), archive.destination, SendSettings()))


def test_no_study_is_missed_where_the_archive_cuts_long_answers_short() -> None:
    """It holds a study a day for a year and a half, and tells at most 120 at once."""
    days = [date(2023, 1, 1) + timedelta(days=number) for number in range(550)]
    asked = []

    def find(level: str, keys: Mapping[str, str]) -> list[Dataset]:
        asked.append(keys["StudyDate"])
        since, until = keys["StudyDate"].split("-")
        held = [day for day in days if since <= f"{day:%Y%m%d}" <= (until or "9")]
        return [an_answer(StudyInstanceUID=f"1.2.{day:%Y%m%d}") for day in held[:120]]

    found = [str(one.StudyInstanceUID) for one in _studies(find, {}, "20230101", "")]
    assert found == [f"1.2.{day:%Y%m%d}" for day in days], "each once"
    assert len(asked) < 40
    assert [str(one.StudyInstanceUID) for one in _studies(find, {}, "20230101", "20230101")] == ["1.2.20230101"]


def test_one_day_that_is_too_long_is_asked_for_once() -> None:
    asked = []

    def find(level: str, keys: Mapping[str, str]) -> list[Dataset]:
        asked.append(keys["StudyDate"])
        return [an_answer(StudyInstanceUID=f"1.2.{number}") for number in range(500)]

    assert len(list(_studies(find, {}, "20240101", "20240101"))) == 500
    assert len(list(_studies(find, {"PatientID": "P"}, "", ""))) == 500, "no range to be parted"
    assert asked == ["20240101-20240101", ""]
