"""Results for those who compute on: BIDS derivatives (doi:10.1038/sdata.2016.44), and one table over a cohort.

Nothing in them names a patient: labels are pseudonyms, no date and no UID is written, the maps end at the brain.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from dicom_node.encode.anatomy import structure
from dicom_node.encode.aside import first_number, is_aside
from dicom_node.encode.identity import OWN_MASK, plain
from dicom_node.encode.nifti import SCANNER
from dicom_node.encode.ranges import age_in_years
from dicom_node.encode.series import SERIES_NUMBERS_PER_SOURCE
from dicom_node.errors import NodeError
from dicom_node.finished import Finished
from dicom_node.pseudonym import Pseudonyms
from dicom_node.regions import split

BIDS_VERSION = "1.10.0"
NATIVE = {"SpatialReference": "orig"}
"""The scan's own grid."""
SOURCE = "SourceImages"
"""Key in a sidecar, of a pseudonym."""
MASK, PHASE = "Mask", "PhaseReading"
"""Keys in a sidecar, of what the site put in the place of a step; absent where it did not."""
OLDEST_TOLD = 89
"""Years; BIDS asks to write higher ages as this one, for few people are older."""


@dataclass(frozen=True)
class BidsMap:
    """A series as BIDS names it.  per_unit: what its stored values are multiplied with to be in `units`."""

    suffix: str
    units: str
    per_unit: float
    description: str
    desc: str = ""

    @property
    def name(self) -> str:
        return f"desc-{self.desc}_{self.suffix}" if self.desc else self.suffix


MAPS = {
    "qsm": BidsMap("Chimap", "ppm", 1e-3, "Magnetic susceptibility"),
    "chipara": BidsMap("Chimap", "ppm", 1e-3, "Magnetic susceptibility of paramagnetic sources", "paramagnetic"),
    "chidia": BidsMap("Chimap", "ppm", 1e-3, "Magnetic susceptibility of diamagnetic sources", "diamagnetic"),
    "r2star": BidsMap("R2starmap", "1/s", 1.0, "Effective transverse relaxation rate R2*"),
    "t2star": BidsMap("T2starmap", "s", 1e-3, "Effective transverse relaxation time T2*"),
}

BRAIN, NUCLEI = "desc-brain_mask", "desc-nuclei_dseg"

SUMMARIES = {"chi": "ppb", "r2star": "per_s"}
COLUMNS = {
    "structure": {"Description": "Without its side"},
    "side": {"Description": "Of the patient", "Levels": {"left": "left", "right": "right"}},
    "voxels": {"Description": "Number of voxels in which the susceptibility is known"},
    "volume_mm3": {"Description": "Their volume", "Units": "mm^3"},
} | {
    f"{quantity}_{statistic}_{unit}": {"Description": f"{words} of {what}", "Units": units}
    for quantity, unit, what, units in (
        ("chi", "ppb", "susceptibility", "ppb"),
        ("r2star", "per_s", "R2*", "1/s"),
    )
    for statistic, words in (
        ("mean", "Mean"),
        ("sd", "Standard deviation"),
        ("median", "Median"),
        ("p5", "5th percentile"),
        ("p95", "95th percentile"),
        ("minimum", "Minimum"),
        ("maximum", "Maximum"),
    )
}
"""Of the tables, as BIDS describes them."""


class SameName(NodeError):
    """Two results that would have the same names in a dataset, of different images or made in different ways."""


class NotOurs(NodeError):
    """A folder that holds something else than an export of this software."""


@dataclass(frozen=True)
class Label:
    """Whose a result is, in pseudonyms.  run: the source's series number, 0 where it has none.

    source: stands for the images that the result was made from.  mask: for the site's own brain mask, "" without one.
    reconstruction: the recipe of a result that stands beside another of the same images, see `encode.aside`.
    """

    subject: str
    session: str
    run: int
    source: str
    mask: str = ""
    reconstruction: str = ""

    @classmethod
    def of(cls, result: Finished, pseudonyms: Pseudonyms, subject: str = "") -> Label:
        """subject: to use in place of the pseudonym."""
        header = result.header
        made_from, recipe = result.record["source"], result.record["recipe"]
        return cls(
            subject or pseudonyms.subject(header),
            pseudonyms.session(header),
            first_number(header) // SERIES_NUMBERS_PER_SOURCE,
            pseudonyms.source(made_from["sop_instance_uids"]),
            pseudonyms.source([mask]) if (mask := made_from.get("mask", "")) else "",
            _alphanumeric(recipe["name"]) or recipe["digest"][:8] if is_aside(header) else "",
        )

    @property
    def stem(self) -> str:
        entities = {
            "sub": self.subject,
            "ses": self.session,
            "rec": self.reconstruction,
            "run": str(self.run) if self.run else "",
        }
        return "_".join(f"{key}-{label}" for key, label in entities.items() if label)


def export_bids(result: Finished, label: Label, folder: Path) -> list[Path]:
    """Adds one result to a BIDS derivative dataset, which is begun where `folder` is absent or empty.

    Writes maps and brain mask as NIfTI with a sidecar each, the nuclei as a segmentation whose table holds the regional
    figures.  What was made of the same images in the same way is put in the place of what is there, whole.  Raises
    NotOurs for a folder that holds something else, and SameName, before anything is written, where a result of other
    images, or one that was made in another way, has the names already.
    """
    _begin(folder)
    anat = folder / f"sub-{label.subject}" / f"ses-{label.session}" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    stem = anat / label.stem
    _keep_another(stem, result, label)
    for path in _there(stem, ".nii.gz", ".json", ".tsv"):
        path.unlink()
    written = []
    for kind, what in MAPS.items():
        if result.has(kind):
            volume = result.volume(kind) * np.float32(what.per_unit)
            told = _sidecar(result, what) | _provenance(result, label)
            written += _volume(anat / f"{stem.name}_{what.name}", volume, result.affine, told)
    regions = result.regions()
    if (brain := regions.get("whole_brain")) is not None:
        told = {
            "Type": "Brain",
            "Description": "Where the susceptibility is known",
            **NATIVE,
            **_provenance(result, label),
        }
        written += _volume(anat / f"{stem.name}_{BRAIN}", brain.astype(np.uint8), result.affine, told)
    written += _segmentation(result, label, regions, anat / f"{stem.name}_{NUCLEI}")
    header = result.header
    _add_row(
        folder / "participants.tsv", {"participant_id": f"sub-{label.subject}", "sex": _sex(header.get("PatientSex"))}
    )
    age = age_in_years(header)
    _add_row(
        folder / f"sub-{label.subject}" / f"sub-{label.subject}_sessions.tsv",
        {"session_id": f"ses-{label.session}", "age": "n/a" if age is None else f"{min(age, OLDEST_TOLD):.1f}"},
    )
    return written


def export_csv(results: Iterable[tuple[Finished, Label]], file: Path) -> int:
    """One row for each region of each result, with what tells scanners and protocols apart; returns how many.

    Units stand in the names of the columns.
    """
    rows = [row for result, label in results for row in _rows(result, label)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, columns)
        table.writeheader()
        table.writerows(rows)
    return len(rows)


def _rows(result: Finished, label: Label) -> list[dict[str, Any]]:
    record, header = result.record, result.header
    acquisition = record["acquisition"]
    age = age_in_years(header)
    common = {
        "participant": f"sub-{label.subject}",
        "session": f"ses-{label.session}",
        "run": label.run,
        "age_years": "" if age is None else round(min(age, OLDEST_TOLD), 1),
        "sex": _sex(header.get("PatientSex")),
        "manufacturer": str(header.get("Manufacturer") or ""),
        "model": str(header.get("ManufacturerModelName") or ""),
        "larmor_frequency_mhz": f"{acquisition['larmor_frequency_hz'] * 1e-6:.4f}",
        "voxel_size_mm": " ".join(f"{size:.4g}" for size in acquisition["voxel_size_mm"]),
        "echo_times_ms": " ".join(f"{time * 1e3:.4g}" for time in acquisition["echo_times_s"]),
        "recipe": record["recipe"]["name"],
        "recipe_sha256": record["recipe"]["digest"],
        "software_version": record["software"]["version"],
        "grade": record["grade"]["grade"],
        "reference_region": record["reference"]["name"],
    }
    return [common | _figures(name, figures) for name, figures in record["regions"].items()]


def _figures(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a region in flat columns."""
    plain, side = split(name)
    flat: dict[str, Any] = {
        "structure": plain,
        "side": side,
        "voxels": figures["voxels"],
        "volume_mm3": f"{figures['volume']:.2f}",
    }
    for quantity, unit in SUMMARIES.items():
        for statistic, value in (figures[quantity] or {}).items():
            # Never with an exponent: spreadsheets of some languages take "1.8e+06" for text.
            flat[f"{quantity}_{statistic}_{unit}"] = f"{value:z.4f}"
    return flat


def _segmentation(result: Finished, label: Label, regions: Mapping[str, NDArray[np.bool_]], stem: Path) -> list[Path]:
    """The structures that do not overlap as labels, and a table of label, name, colour and figures."""
    reference = result.record["reference"]["name"]
    names = [name for name in regions if name not in ("whole_brain", reference)]
    if not names:
        return []
    labels = np.zeros(next(iter(regions.values())).shape, np.uint8)
    rows = []
    for number, name in enumerate(names, 1):
        labels[regions[name]] = number
        colour = "#{:02x}{:02x}{:02x}".format(*structure(name).colour)
        figures = _figures(name, result.record["regions"][name])
        rows.append({"index": number, "name": name, "color": colour} | figures)
    table = stem.with_name(f"{stem.name}.tsv")
    _write_table(table, rows)
    known = {column: COLUMNS[column] for column in rows[0] if column in COLUMNS}
    told = {
        "Description": "Nuclei and other structures of the atlas",
        "Manual": False,
        **NATIVE,
        **known,
        **_provenance(result, label),
    }
    return [*_volume(stem, labels, result.affine, told), table]


def _sidecar(result: Finished, what: BidsMap) -> dict[str, Any]:
    record, header = result.record, result.header
    told: dict[str, Any] = {
        "Description": what.description,
        "Units": what.units,
        "SkullStripped": True,
        "EstimationReference": "doi:10.1002/mrm.30006",
        "EstimationAlgorithm": ", ".join(f"{stage} {method}" for stage, method in _methods(record).items()),
    }
    if header.get("MagneticFieldStrength"):
        told["MagneticFieldStrength"] = float(header.MagneticFieldStrength)
    if header.get("Manufacturer"):
        told["Manufacturer"] = str(header.Manufacturer)
    if what.suffix == "Chimap":
        told["ReferenceRegion"] = record["reference"]
        told["WholeBrain"] = record["regions"].get("whole_brain")
    return told | {"EchoTimes": record["acquisition"]["echo_times_s"]}


def _methods(record: Mapping[str, Any]) -> dict[str, str]:
    """As `encode.identity.methods`, of a record."""
    steps = {stage: step["method"] for stage, step in record["recipe"].items() if isinstance(step, dict)}
    return steps | ({"mask": OWN_MASK} if record["source"].get("mask") else {})


def _keep_another(stem: Path, result: Finished, label: Label) -> None:
    """Raises SameName where one of the names is taken by another result."""
    ours = _way(_provenance(result, label))
    for sidecar in _there(stem, ".json"):
        theirs = json.loads(sidecar.read_text(encoding="utf-8"))
        if theirs.get(SOURCE, label.source) != label.source:
            raise SameName(
                f"{sidecar} is of other images of the same study, with the same series number; export this result to "
                "another folder, or delete that one if it was replaced"
            )
        if _way(theirs) != ours:
            raise SameName(
                f"{sidecar} was made of the same images in another way ({_in_words(_way(theirs))}) than this result "
                f"({_in_words(ours)}); export this result to another folder, or delete that one's files if it was "
                "replaced"
            )


def _there(stem: Path, *ends: str) -> list[Path]:
    """The files of an earlier export of this name: those that a site put beside them are its own."""
    names = [*(what.name for what in MAPS.values()), BRAIN, NUCLEI]
    paths = [stem.with_name(f"{stem.name}_{name}{end}") for name in names for end in ends]
    return [path for path in paths if path.is_file()]


def _way(sidecar: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides on the maps beside the images: recipe and software, the site's own mask and reading of the phase."""
    recipe = sidecar.get("Recipe", {})
    mask = sidecar.get(MASK, {}).get("Name", "")
    return recipe.get("name"), recipe.get("digest"), mask, sidecar.get(PHASE, {})


def _in_words(way: tuple[Any, ...]) -> str:
    name, digest, mask, phase = way
    told = [f"recipe {name} {str(digest)[:12]}", *([f"mask {OWN_MASK}, {mask}"] if mask else [])]
    return ", ".join([*told, *(f"phase {key} {value}" for key, value in sorted(phase.items()))])


def _provenance(result: Finished, label: Label) -> dict[str, Any]:
    record = result.record
    told = {
        SOURCE: label.source,
        "Grade": record["grade"],
        "Purpose": record["purpose"],
        "Software": record["software"],
        "Recipe": record["recipe"],
        "Quality": record["quality"],
    }
    if label.mask:
        told[MASK] = {"Origin": f"{OWN_MASK}; the recipe's was not looked for", "Name": label.mask}
    if phase := record["source"].get("phase_override", {}):
        told[PHASE] = phase
    return told


def _volume(stem: Path, volume: NDArray[Any], affine: NDArray[np.float64], told: Mapping[str, Any]) -> list[Path]:
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, SCANNER)
    image.set_sform(affine, SCANNER)
    image.header.set_xyzt_units("mm")
    path, sidecar = stem.with_name(f"{stem.name}.nii.gz"), stem.with_name(f"{stem.name}.json")
    nib.save(image, path)
    _write_json(sidecar, told)
    return [path, sidecar]


def _begin(folder: Path) -> None:
    """Makes a folder a dataset of ours."""
    description = folder / "dataset_description.json"
    if description.is_file():
        made_by = json.loads(description.read_text(encoding="utf-8")).get("GeneratedBy", [])
        if not any(tool.get("Name") == "qsm-node" for tool in made_by):
            raise NotOurs(f"{folder} is a BIDS dataset that qsm-node did not make; name another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise NotOurs(f"{folder} is not empty and no BIDS dataset; name another folder")
    _write_json(
        description,
        {
            "Name": "Quantitative susceptibility maps",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "qsm-node", "Version": version("qsm-node")}],
        },
    )
    _write_json(
        folder / "participants.json",
        {"sex": {"Description": "as the scanner was told", "Levels": {"M": "male", "F": "female", "O": "other"}}},
    )
    _write_json(
        folder / "sessions.json",
        {"age": {"Description": f"At the study; {OLDEST_TOLD} stands for this and more", "Units": "year"}},
    )
    (folder / "README.md").write_text(
        "# Quantitative susceptibility maps\n\nMade by qsm-node. For research, not for diagnosis. Labels of subjects "
        "and sessions are pseudonyms under a key that the site keeps.\n",
        encoding="utf-8",
    )


def _alphanumeric(name: str) -> str:
    """All that a label in BIDS may hold."""
    return "".join(letter for letter in plain(name) if letter.isalnum())


def _sex(told: Any) -> str:
    """ "" for what is not known, or is no sex but somebody's note."""
    return str(told) if told in ("M", "F", "O") else ""


def _add_row(path: Path, row: Mapping[str, str]) -> None:
    """Puts a row into a table in place of the one with the same first column; rows are sorted by it."""
    rows: dict[str, Mapping[str, str]] = {}
    key = next(iter(row))
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = {known[key]: known for known in csv.DictReader(file, delimiter="\t")}
    rows[row[key]] = row
    _write_table(path, [rows[name] for name in sorted(rows)])


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, delimiter="\t", restval="n/a", lineterminator="\n")
        table.writeheader()
        table.writerows(
            {column: "n/a" if row.get(column) in ("", None) else row[column] for column in columns} for row in rows
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
