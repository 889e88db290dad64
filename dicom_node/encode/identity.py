"""Who an output is and who made it: derived UIDs, the software's name, the patient and study it belongs to.

UIDs are derived from all that the content follows from: the source SOP instances, the recipe's digest, what the site
configured of the phase, and its own brain mask.  So doing a job again names the same objects and a PACS that has them
keeps one copy, and a map that was made otherwise never hides behind one that is there (PS3.5 B.2 leaves the choice of
suffix to the root's owner; the root is pydicom's, given out for this use).
"""

from __future__ import annotations

import datetime
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from importlib.metadata import version

from highdicom import ContributingEquipment
from pydicom.charset import STAND_ALONE_ENCODINGS, custom_encoders, python_encoding
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, generate_uid

from dicom_node.convert.header import values
from dicom_node.convert.source import Source
from dicom_node.identity import RESEARCH_ONLY
from reconstruction import Recipe

SOFTWARE = "QSM node"

LOCAL_SCHEME = "99QSMNODE"
"""For what no published code says (PS3.16 8); objects that use it declare it."""

VERSION = version("qsm-node")

ONE_BYTE = (13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166)
EXTENSIONS = {f"ISO 2022 IR {n}": python_encoding[f"ISO 2022 IR {n}"] for n in (*ONE_BYTE, 87, 149, 159)}
"""Character sets (PS3.3 C.12.1.1.2) that may follow the first; of IR 58 pydicom 3.0 forgets the escape sequence."""
FIRST: dict[str, list[str]] = {
    **{f"{kind} {n}": [python_encoding[f"{kind} {n}"]] for kind in ("ISO_IR", "ISO 2022 IR") for n in ONE_BYTE},
    **{ascii_alone: [] for ascii_alone in ("", "ISO_IR 6", "ISO 2022 IR 6")},  # pydicom takes them for Latin 1
}
"""Those that may be the first, where others may follow."""
KOREAN, TWO_BYTES = "euc_kr", 2
"""Of any character of KS X 1001; Python's codec composes others of eight bytes, which few readers take apart."""

OWN_MASK = "the site's own"
"""In the place of a method, where none looked for the brain."""

TYPED = str.maketrans(
    {
        "\\": "/",
        "ß": "ss",
        "æ": "ae",
        "ø": "o",
        "ł": "l",
        "×": "x",
        "±": "+/-",
        "·": "*",
        "−": "-",
        "–": "-",
        "—": "-",
        "′": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "≥": ">=",
        "≤": "<=",
        "χ": "chi",
        "µ": "u",
    }
)
"""What Unicode does not take apart (NFKD), as a typewriter has it."""

DEVICE_UID = generate_uid(entropy_srcs=["qsm-node", "device", VERSION])
"""The observer of the report: this software in this version, wherever it runs."""

UTC_OFFSET = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
"""&ZZXX of PS3.3 C.12.1.1.8; anything else is taken for no statement."""

PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)
STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "StudyDescription",
)
TYPE_2 = frozenset(
    {
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "ReferringPhysicianName",
        "StudyID",
        "AccessionNumber",
    }
)
"""Must be present, may be empty (PS3.3 C.7.1.1, C.7.2.1)."""


@dataclass(frozen=True)
class Identity:
    """Names the objects made from one set of sources, read in one way, with one recipe."""

    seed: str

    @classmethod
    def of(cls, source: Source, recipe: Recipe) -> Identity:
        uids = sorted(sop_instance for _, _, sop_instance in source_images(source))
        configured = [f"{name}={value}" for name, value in sorted(source.override.applied().items())]
        configured += [f"mask={source.mask}"] if source.mask else []
        return cls(hashlib.sha256("\n".join([*uids, recipe.digest(), *configured]).encode()).hexdigest())

    def uid(self, *what: str | int) -> UID:
        """The UID of one thing ("QSM", "instance", 3), the same for the same sources, reading and recipe."""
        return generate_uid(entropy_srcs=["\n".join([self.seed, *map(str, what)])])


def source_images(source: Source) -> list[tuple[str, str, str]]:
    """Series, SOP class and SOP instance UID of every source image, once each, in order."""
    references = (reference for slice_ in source.references for reference in slice_)
    return sorted({(r.series_instance_uid, r.sop_class_uid, r.sop_instance_uid) for r in references})


def inherit(target: Dataset, header: Dataset, keywords: Iterable[str], empty: Iterable[str] = ()) -> None:
    """Copies the listed attributes that carry a value; those of `empty` are written empty where the source has none.

    An explicit list, and no sequences: what a vendor leaves in an object's optional corners (empty sequences, codes
    "UNDEFINED") would make an invalid object of ours.
    """
    wanted_empty = frozenset(empty)
    for keyword in keywords:
        if keyword in header and not header[keyword].is_empty:
            target[keyword] = copy(header[keyword])
        elif keyword in wanted_empty:
            target.pop(keyword, None)  # other datasets may share the element
            setattr(target, keyword, None)
        elif keyword in target:
            delattr(target, keyword)


def inherit_patient_and_study(target: Dataset, header: Dataset) -> None:
    """Puts an object into the source's study, with the character set its names are written in."""
    inherit(target, header, ("SpecificCharacterSet",))
    if UTC_OFFSET.fullmatch(str(header.get("TimezoneOffsetFromUTC") or "")):
        inherit(target, header, ("TimezoneOffsetFromUTC",))
    inherit(target, header, (*PATIENT, *STUDY), empty=TYPE_2)


def local_time(created: float, header: Dataset) -> datetime.datetime:
    """Seconds since the epoch as wall-clock time: in the source's zone where it names one, else in the node's.

    One zone holds for every date and time of an object (PS3.3 C.12.1.1.8).
    """
    offset = str(header.get("TimezoneOffsetFromUTC") or "")
    zone = datetime.datetime.strptime(offset, "%z").tzinfo if UTC_OFFSET.fullmatch(offset) else None
    return datetime.datetime.fromtimestamp(created, zone).replace(tzinfo=None)


def stamp(target: Dataset, when: datetime.datetime) -> None:
    """Every date and time of the object's making: that of its job, so that a job done twice makes equal bytes."""
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    target.SeriesDate = target.ContentDate = target.InstanceCreationDate = date
    target.SeriesTime = target.ContentTime = target.InstanceCreationTime = time


def processing_equipment(recipe: Recipe, when: datetime.datetime) -> ContributingEquipment:
    """(109102, DCM, "Processing Equipment"): this software, its version and the recipe's digest (PS3.3 C.12.1)."""
    return ContributingEquipment(
        manufacturer=SOFTWARE,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name="qsm-node",
        software_versions=VERSION,
        contribution_datetime=when,
        contribution_description=f"Recipe {plain(recipe.name)}, SHA-256 {recipe.digest()}. {RESEARCH_ONLY}",
    )


def methods(recipe: Recipe, mask: str) -> dict[str, str]:
    """The method of each stage.  mask: the site's own, `Source.mask`, which stands in place of the recipe's."""
    return {stage: step.method for stage, step in recipe.steps.items()} | ({"mask": OWN_MASK} if mask else {})


def describe_recipe(recipe: Recipe, source: Source) -> tuple[str, ...]:
    """One line for each step, with every parameter: "background: vsharp, max_radius_mm=12.0".

    And what the site put in the place of a step: its own brain mask, its own reading of the phase.
    """
    steps = {
        stage: ", ".join([step.method, *(f"{k}={v}" for k, v in sorted(step.settings.items()))])
        for stage, step in recipe.steps.items()
    }
    if source.mask:
        steps["mask"] = f"{OWN_MASK}, {source.mask}"
    if applied := source.override.applied():
        steps["phase"] = ", ".join(["as the site says", *(f"{k}={v}" for k, v in sorted(applied.items()))])
    return tuple(plain(f"{stage}: {words}") for stage, words in steps.items())


def plain(text: str) -> str:
    """ASCII without backslashes: right in every character set a source may declare, and one value, never two.

    Letters lose their accents, signs become those of a typewriter, and what has none becomes a question mark.
    """
    bare = unicodedata.normalize("NFKD", text.translate(TYPED))
    letters = "".join(character for character in bare if not unicodedata.combining(character))
    whole = unicodedata.normalize("NFC", letters)  # a Korean syllable is one letter again
    return whole.encode("ascii", "replace").decode()


def written(text: str, header: Dataset) -> str:
    """The words themselves, in one line, as far as the source's character sets, which objects inherit, have them.

    A letter that they lack is put as `plain` puts it.  All sets count: those behind the first are reached by code
    extensions (PS3.5 6.1.2.5).  A backslash, which would part two values, becomes a slash.
    """
    encodings = _encodings(header)
    words = unicodedata.normalize("NFC", " ".join(text.split()).replace("\\", "/"))
    return "".join(letter if letter.isascii() or _has(letter, encodings) else plain(letter) for letter in words)


def _encodings(header: Dataset) -> list[str]:
    """Python's names of the character sets that the source declares and that hold more than ASCII."""
    first, *behind = [str(value or "") for value in values(header, "SpecificCharacterSet")] or [""]
    if first in STAND_ALONE_ENCODINGS:
        return [python_encoding[first]]
    if first not in FIRST:
        return []
    return [*FIRST[first], *(EXTENSIONS[name] for name in behind if name in EXTENSIONS)]


def _has(letter: str, encodings: Iterable[str]) -> bool:
    return any(_encodes(encoding, letter) for encoding in encodings)


def _encodes(encoding: str, letter: str) -> bool:
    """Whether a reader gets the letter back: some codecs put another one in its place."""
    try:
        sent = custom_encoders[encoding](letter) if encoding in custom_encoders else letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return sent.decode(encoding) == letter and (encoding != KOREAN or len(sent) <= TWO_BYTES)
