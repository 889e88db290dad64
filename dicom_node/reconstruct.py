"""One job: the images of one acquisition become a folder of results.  Knows no database and no network.

A job folder holds

    job.json          {"instances": [path, …], "created_at": seconds since the epoch, "scanners": [what the site knows,
                      see `config.Scanner`], "output": what is to be made, see `config.Output`, "device": where the
                      physics runs, "reprocessed": see `encode.aside`}, written by whoever made the job
    progress.jsonl    one line {"at": seconds, "stage": name} for each stage that began, over all attempts
    result.part/      being written
    result/           dicom/*.dcm, report.json, map.png, thumbnail.png; appears complete or not at all

`created_at` is the only time that enters the results (the file's own time stands in for it where it is absent), so that
a job that is done again makes the same files.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import structlog
from PIL import Image
from pydicom.dataset import Dataset

from dicom_node.convert import Override, Source, convert, describe
from dicom_node.convert.mask import named, with_mask
from dicom_node.encode import encode, wanted_ranges
from dicom_node.encode.aside import set_aside
from dicom_node.encode.file import Writer
from dicom_node.encode.record import names, record
from dicom_node.encode.thumbnail import thumbnail
from dicom_node.errors import NotConvertible
from dicom_node.group import group
from dicom_node.model import Completeness, Group
from dicom_node.recipes import Recipe, atlas_of
from dicom_node.review import as_data, check, settings_of
from dicom_node.settings import Output, Scanner
from reconstruction import (
    InvalidAcquisition,
    Maps,
    NotReconstructible,
    reconstruct,
)

SLICES_OF_QSM = "??-qsm-*.dcm"

log = structlog.get_logger(__name__)

OnStage = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one acquisition came to.  outputs: file name → dataset, in sending order.  record: for report.json."""

    maps: Maps
    source: Source
    outputs: dict[str, Dataset]
    record: dict[str, Any]
    picture: Image.Image


def reconstruct_job(job_folder: Path, recipe: Recipe) -> Path:
    """Does the job and returns its result folder; one that is there, made of the same images in the same way, is kept.

    Raises NotConvertible or UnreadableObject with the reason for the job, OSError for the disk.
    """
    job_file = job_folder / "job.json"
    job = json.loads(job_file.read_text())
    result, part = job_folder / "result", job_folder / "result.part"
    acquired = _sole_acquisition([Path(path) for path in job["instances"]])
    scanners = [Scanner.model_validate(scanner) for scanner in job.get("scanners", ())]
    output = Output.model_validate(job.get("output", {}))
    if _is_made_from(result, acquired, recipe, settings_of(acquired, scanners).override, output):
        return result
    for stale in (part, result):
        if stale.exists():
            shutil.rmtree(stale)
    with (job_folder / "progress.jsonl").open("a", encoding="utf-8") as progress:

        def on_stage(stage: str) -> None:
            progress.write(json.dumps({"at": time.time(), "stage": stage}) + "\n")
            progress.flush()

        created = job.get("created_at", job_file.stat().st_mtime)
        device = job.get("device", "cpu")
        reprocessed = job.get("reprocessed", 0)
        outcome = reconstruct_group(
            acquired, recipe, created, on_stage, scanners, output, device=device, reprocessed=reprocessed
        )
        on_stage("write")
        write(outcome, part)
        part.rename(result)
        _sync(job_folder)
        on_stage("done")
    return result


def reconstruct_group(
    acquired: Group,
    recipe: Recipe,
    created: float,
    on_stage: OnStage,
    scanners: Sequence[Scanner] = (),
    output: Output | None = None,
    mask: Path | None = None,
    device: str = "cpu",
    reprocessed: int = 0,
) -> Outcome:
    """From images to encoded results, in memory.  created: see `encode`.  on_stage: told as each stage begins.
    mask: a file with the brain, which goes before a segmentation among the images.  reprocessed: see `encode.aside`.
    Raises NotConvertible for images from which no map can be made, Contradicted for a phase that cannot be what its
    header says, with the reason; InvalidConfiguration for a table of reference ranges that cannot be read.
    """
    output = output or Output()
    wanted_ranges(output)  # a faulty table should be known before the work
    watch = Stopwatch(on_stage)
    watch("convert")
    try:
        scanner = settings_of(acquired, scanners)
        acquisition, source = convert(acquired, scanner.override)
        acquisition, source = with_mask(acquisition, source, mask or acquired.mask_file)
        watch("check")
        judged = check(acquisition, source, scanner)
        source = replace(source, warnings=(*source.warnings, *judged.warnings))
        maps = reconstruct(acquisition, recipe, watch, atlas_of(recipe), device=device)
    except (InvalidAcquisition, NotReconstructible) as error:
        raise NotConvertible(str(error)) from error
    watch("encode")
    encoded = encode(maps, source, recipe, created, output)
    if reprocessed:
        set_aside(encoded.datasets, recipe, reprocessed)
    outputs = names(encoded.datasets)
    report = record(acquisition, maps, source, recipe, encoded, outputs, watch.stop())
    report |= {"decisions": list(source.decisions), "plausibility": as_data(judged.found)}
    report |= {"output": output.model_dump(mode="json")}
    return Outcome(maps, source, outputs, report, encoded.page)


def write(outcome: Outcome, folder: Path) -> None:
    """Writes dicom/, map.png, thumbnail.png and report.json below `folder`, each durable; the report comes last."""
    images = folder / "dicom"
    images.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as disk:  # a file waits for the disk while the next is encoded
        written, encode_file = [disk.submit(_write_picture, folder / "map.png", outcome.picture)], Writer()
        for name, dataset in outcome.outputs.items():
            written.append(disk.submit(_write, images / name, encode_file(dataset)))
        slices = [dataset for name, dataset in outcome.outputs.items() if fnmatch(name, SLICES_OF_QSM)]
        if slices and (small := _small(slices[len(slices) // 2])):
            written.append(disk.submit(_write_picture, folder / "thumbnail.png", small))
        for one in written:
            one.result()
    _write(folder / "report.json", (json.dumps(outcome.record, indent=2) + "\n").encode())
    _sync(images)
    _sync(folder)


def remove_outputs(folder: Path) -> None:
    """Removes the DICOM files of an earlier run, as its report lists them: they must not mix with those of the next."""
    for output in (_record(folder) or {"outputs": []})["outputs"]:
        (folder / "dicom" / Path(output["file"]).name).unlink(missing_ok=True)


class Stopwatch:
    """Passes stages on and remembers how long each took."""

    def __init__(self, on_stage: OnStage) -> None:
        self._on_stage = on_stage
        self._began: list[tuple[str, float]] = []

    def __call__(self, stage: str) -> None:
        self._began.append((stage, time.monotonic()))
        self._on_stage(stage)

    def stop(self) -> dict[str, float]:
        """Seconds by stage until now."""
        ends = [at for _, at in self._began[1:]] + [time.monotonic()]
        return {stage: end - at for (stage, at), end in zip(self._began, ends, strict=True)}


def _sole_acquisition(paths: Sequence[Path]) -> Group:
    """The one complete acquisition in a job's images."""
    instances = [describe(path, 0.0, "") for path in paths]
    groups = group(instances, now=0.0, quiet_time=0.0, open_associations=frozenset())
    complete = [g for g in groups if g.completeness is Completeness.COMPLETE]
    if len(complete) != 1:
        reasons = "; ".join(g.reason for g in groups if g.reason) or "no reason given"
        raise NotConvertible(
            f"the job's {len(paths)} files hold {len(complete)} complete acquisitions; expected one: {reasons}"
        )
    return complete[0]


def _is_made_from(result: Path, acquired: Group, recipe: Recipe, override: Override, output: Output) -> bool:
    """Whether there is a finished result of these images, read and made in this way; an unreadable one is none."""
    found = _record(result)
    return found is not None and (
        found["recipe"]["digest"] == recipe.digest()
        and found["source"]["sop_instance_uids"] == sorted(i.sop_instance_uid for i in acquired.instances)
        and found["source"].get("phase_override", {}) == override.applied()
        and found["source"].get("mask", "") == (named(acquired.mask.sop_instance_uid) if acquired.mask else "")
        and found.get("output") == output.model_dump(mode="json")
    )


def _record(result: Path) -> dict[str, Any] | None:
    """The report.json of a finished result; None if there is none, or if it is not one that we wrote."""
    try:
        found = json.loads((result / "report.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    ours = isinstance(found, dict) and {"recipe", "source", "outputs"} <= found.keys()
    return found if ours else None


def _small(image: Dataset) -> Image.Image | None:
    """That a map cannot be shown small is no reason to send none."""
    try:
        return thumbnail(image)
    except Exception:
        log.exception("no_thumbnail")
        return None


def _write_picture(path: Path, picture: Image.Image) -> None:
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    _write(path, encoded.getvalue())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
