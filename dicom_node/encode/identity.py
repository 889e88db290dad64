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
from pydicom.charset import python_encoding
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

ONE_BYTE = (100, 101, 109, 110, 126, 127, 138, 144, 148, 166)
ENCODINGS = {
    **{f"{kind} {one}": python_encoding[f"{kind} {one}"] for kind in ("ISO_IR", "ISO 2022 IR") for one in ONE_BYTE},
    **{name: python_encoding[name] for name in ("ISO_IR 192", "GB18030", "GBK")},
}
"""Of character sets (PS3.3 C.12.1.1.2) that hold all their characters without escapes, where they stand first."""
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


def describe_recipe(recipe: Recipe) -> tuple[str, ...]:
    """One line for each step, with every parameter: "background: vsharp, max_radius_mm=12.0"."""
    return tuple(
        plain(", ".join([f"{stage}: {step.method}", *(f"{k}={v}" for k, v in sorted(step.settings.items()))]))
        for stage, step in recipe.steps.items()
    )


def plain(text: str) -> str:
    """ASCII without backslashes: right in every character set a source may declare, and one value, never two.

    Letters lose their accents, signs become those of a typewriter, and what has none becomes a question mark.
    """
    bare = unicodedata.normalize("NFKD", text.translate(TYPED))
    letters = "".join(character for character in bare if not unicodedata.combining(character))
    return letters.encode("ascii", "replace").decode()


def written(text: str, header: Dataset) -> str:
    """The words themselves where the source's character set, which objects inherit, has all of them; else `plain`."""
    first = next(iter(values(header, "SpecificCharacterSet")), "")
    encoding = ENCODINGS.get(str(first), "ascii")
    words = unicodedata.normalize("NFC", text.replace("\\", "/"))
    try:
        words.encode(encoding)
    except UnicodeEncodeError:
        return plain(text)
    return words
