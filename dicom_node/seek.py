"""Seek: looks for multi-echo gradient echoes in an archive at study, series, image, by C-FIND (PS3.4 C.4.1) or QIDO-RS.

An archive need not tell what it is asked at image level.  What it tells against a series counts; where it is silent of
echo times, only a series that may hold several is worth fetching, and what that is gets said.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial

import structlog
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.call import MOST_ANSWERS, PENDING, Destination, SendSettings, associate, given_up_when
from dicom_node.errors import PeerFailure
from dicom_node.qido import Find, querying, too_many
from dicom_node.spool import UID_PATTERN
from dicom_node.web import WebService

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model - FIND."""

_STUDY_KEYS = {"StudyDate": "", "ModalitiesInStudy": "MR"}
_SERIES_KEYS = {"SeriesInstanceUID": "", "Modality": "MR", "SeriesNumber": "", "SeriesDescription": ""}
_IMAGE_KEYS = (
    *("SOPInstanceUID", "SOPClassUID", "ImageType", "EchoTime", "ScanningSequence", "EchoPulseSequence"),
    "ImagePositionPatient",
)
_DECIMAL = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *")
"""The value representation DS (PS3.5 6.2); archives tell other things too."""
_MANY = 100
"""Studies in one answer from which on it may have been cut short; archives stop at some hundreds."""
_FEWEST_SLICES = 4
"""As many as the node reconstructs; fewer are localisers."""

log = structlog.get_logger(__name__)

OnQuery = Callable[[str, Mapping[str, str]], None]
"""Is told each question before it is asked: level and keys."""

UNTOLD = "the archive does not tell echo times; name its study to fetch it all the same"


@dataclass(frozen=True)
class Wanted:
    """What a person asks for; "" for anything.  since, until: dates as YYYYMMDD, both included."""

    patient: str = ""
    study: str = ""
    accession: str = ""
    since: str = ""
    until: str = ""


@dataclass(frozen=True)
class Candidate:
    """A series of the archive.  against: why it is not worth fetching, "" if it is.

    instances: SOP Instance UIDs of its images, none where the archive does not tell them all.
    """

    study_instance_uid: str
    series_instance_uid: str
    study_date: str
    number: str
    description: str
    images: int
    against: str
    instances: frozenset[str] = frozenset()


def seek(
    wanted: Wanted,
    archive: Destination | WebService,
    settings: SendSettings,
    stopping: Callable[[], bool] = lambda: False,
    on_query: OnQuery = lambda level, keys: None,
) -> Iterator[Candidate]:
    """Every MR series of the studies that are wanted, with a judgement, study by study.

    stopping: then no answer is waited for any longer.  Raises PeerFailure.
    """

    def asking(level: str, keys: Mapping[str, str]) -> Iterable[Dataset]:
        on_query(level, keys)
        return find(level, keys)

    with (
        querying(archive, settings, stopping)
        if isinstance(archive, WebService)
        else _finding(archive, settings, stopping)
    ) as find:
        keys = {
            **_STUDY_KEYS,
            **{"PatientID": wanted.patient, "StudyInstanceUID": wanted.study, "AccessionNumber": wanted.accession},
        }
        for study in _studies(asking, keys, wanted.since, wanted.until):
            for candidate in _study(asking, study):
                is_named = candidate.against == UNTOLD and wanted.study
                yield replace(candidate, against="") if is_named else candidate


def judge(series: Mapping[str, Sequence[Dataset]]) -> dict[str, str]:
    """What speaks against each series of a study, "" for nothing, given what the archive tells of its images.

    Echoes may lie in one series, or each in one of its own: then all of the same size are looked at together.
    """
    against = {uid: _against(images) for uid, images in series.items()}
    echoes_of_size: dict[int, set[str]] = defaultdict(set)
    for uid, images in series.items():
        if not against[uid]:
            echoes_of_size[len(images)] |= _echo_times(images)
    for uid, images in series.items():
        if against[uid] or _is_enhanced(images):
            continue
        own = _echo_times(images)
        if not own:
            against[uid] = UNTOLD
        elif len(own) < 2 and len(echoes_of_size[len(images)]) < 2:
            against[uid] = f"one echo, {next(iter(own))} ms"
    return against


def _studies(find: Find, keys: Mapping[str, str], since: str, until: str) -> Iterator[Dataset]:
    """Those of a range of dates, of which a long one is asked for in halves: archives cut long answers short, and need
    not say so."""
    dates = f"{since}-{until}" if since or until else ""
    # All of them before the next question: one association answers one question at a time.
    found = _named(find("STUDY", {**keys, "StudyDate": dates}), "StudyInstanceUID")
    first = _day(since)
    last = _day(until) or date.today()
    if len(found) < _MANY or first is None or first >= last:
        yield from found
        return
    middle = first + (last - first) // 2
    yield from _studies(find, keys, since, f"{middle:%Y%m%d}")
    yield from _studies(find, keys, f"{middle + timedelta(days=1):%Y%m%d}", until)


def _day(value: str) -> date | None:
    return datetime.strptime(value, "%Y%m%d").date() if value else None


def _study(find: Find, study: Dataset) -> Iterator[Candidate]:
    uid = str(study.StudyInstanceUID)
    series_keys = {"StudyInstanceUID": uid, **_SERIES_KEYS}
    found = {str(one.SeriesInstanceUID): one for one in _named(find("SERIES", series_keys), "SeriesInstanceUID")}
    images = {}
    for series in found:
        keys = {"StudyInstanceUID": uid, "SeriesInstanceUID": series, **dict.fromkeys(_IMAGE_KEYS, "")}
        images[series] = list(find("IMAGE", keys))
    against = judge(images)
    for series, told in found.items():
        yield Candidate(
            uid,
            series,
            str(study.get("StudyDate") or ""),
            str(told.get("SeriesNumber") or ""),
            str(told.get("SeriesDescription") or ""),
            len(images[series]),
            against[series],
            _told(images[series]),
        )


def _told(images: Sequence[Dataset]) -> frozenset[str]:
    uids = frozenset(str(image.get("SOPInstanceUID") or "") for image in images)
    return frozenset() if "" in uids else uids


def _against(images: Sequence[Dataset]) -> str:
    """What one series says against itself, whatever the others are."""
    if _is_enhanced(images):
        pulse = {str(image.get("EchoPulseSequence") or "") for image in images}
        return "" if pulse & {"", "GRADIENT", "BOTH"} else f"its echoes are {', '.join(sorted(pulse))}"
    if 0 < len(images) < _FEWEST_SLICES:
        return f"{len(images)} images"
    kinds = [_values(image, "ImageType") for image in images]
    if all(kind[:1] == ["DERIVED"] or "LOCALIZER" in kind for kind in kinds if kind) and any(kinds):
        return "derived or localiser"
    sequences = [_values(image, "ScanningSequence") for image in images]
    # RM alone is no reason: Philips and GE write it for 3D multi-echo gradient echoes too.
    if any(sequences) and not any({"GR", "RM"} & set(sequence) for sequence in sequences):
        return f"its scanning sequence is {'/'.join(next(filter(None, sequences)))}"
    if any("EP" in sequence for sequence in sequences):
        return "echo-planar"
    return ""


def _is_enhanced(images: Sequence[Dataset]) -> bool:
    classes = {str(image.get("SOPClassUID") or "") for image in images}
    return bool(classes) and classes <= {EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage}


def _echo_times(images: Sequence[Dataset]) -> set[str]:
    """In ms, as text.  One answer may hold several: of a multi-frame object, or of an archive that sums up."""
    told = {value for image in images for value in _values(image, "EchoTime")}
    return {str(float(value)) for value in told if _DECIMAL.fullmatch(value)}


def _values(image: Dataset, keyword: str) -> list[str]:
    value = image.get(keyword)
    if not value:
        return []
    return [str(one) for one in value] if isinstance(value, MultiValue) else [str(value)]


def _named(answers: Iterable[Dataset], unique_key: str) -> list[Dataset]:
    """Those that say what they are of, by a UID."""
    found = list(answers)
    named = [one for one in found if UID_PATTERN.fullmatch(str(one.get(unique_key) or ""))]
    if len(named) < len(found):
        log.warning("answers_without_a_name", lacking=unique_key, count=len(found) - len(named))
    return named


def _readable(answer: Dataset) -> Dataset:
    """Without what cannot be read: an odd value is one that was not told."""
    for tag in list(answer.keys()):
        try:
            answer[tag]
        except Exception as error:  # noqa: BLE001 - whatever pydicom raises for what a stranger has sent
            log.warning("answer_unreadable", tag=str(tag), error=type(error).__name__)
            del answer[tag]
    return answer


@contextmanager
def _finding(archive: Destination, settings: SendSettings, stopping: Callable[[], bool]) -> Iterator[Find]:
    with (
        associate([build_context(FIND)], archive, settings) as association,
        given_up_when(stopping, association),
    ):
        yield partial(_find, association, archive)


def as_identifier(level: str, keys: Mapping[str, str]) -> Dataset:
    """Of a C-FIND (PS3.4 C.4.1.1.3)."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _find(association: Association, archive: Destination, level: str, keys: Mapping[str, str]) -> Iterator[Dataset]:
    query = as_identifier(level, keys)
    with _answering(archive):
        for count, (status, identifier) in enumerate(association.send_c_find(query, FIND)):
            if count > MOST_ANSWERS:
                raise too_many(archive)
            if "Status" not in status:
                raise PeerFailure(f"{archive.words} broke off or did not answer a query in time")
            if status.Status in PENDING:
                if identifier is not None:
                    yield _readable(identifier)
            elif status.Status != 0x0000:
                raise PeerFailure(f"{archive.words} answered a query with 0x{status.Status:04X}")


@contextmanager
def _answering(archive: Destination) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # the association has ended
        raise PeerFailure(f"{archive.words} ended the association: {error}") from error
