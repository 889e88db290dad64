"""The desk: a folder of DICOM files becomes a folder of results, without network and store (`qsm-node reconstruct`).

    OUT_DIR/dicom/*.dcm  OUT_DIR/map.png  OUT_DIR/thumbnail.png  OUT_DIR/report.json
    and, where asked for, OUT_DIR/nifti/*.nii.gz

Where several acquisitions are found, each has such a folder of its own: OUT_DIR/1, OUT_DIR/2, … in the order of study,
series number and series.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from dicom_node.encode.nifti import remove_nifti, write_nifti
from dicom_node.errors import NodeError, NotConvertible, UnreadableObject
from dicom_node.folder import RECEIVED, read
from dicom_node.group import group
from dicom_node.model import Completeness, Group, Instance
from dicom_node.recipes import Recipe
from dicom_node.reconstruct import reconstruct_group, remove_outputs, write
from dicom_node.settings import Output, Scanner

DONE, FAILED, NOTHING_RECONSTRUCTIBLE = 0, 1, 3
"""Exit codes; 2 is wrong usage, which the command line finds out before."""


def reconstruct_folder(
    input_dir: Path,
    out_dir: Path,
    recipe: Recipe,
    nifti: bool,
    scanners: Sequence[Scanner] = (),
    output: Output | None = None,
    mask: Path | None = None,
    device: str = "cpu",
    instances: Sequence[Instance] | None = None,
) -> int:
    """Reconstructs every complete acquisition below `input_dir`; progress and reasons go to stderr.

    scanners: what the site knows of them.  output: what is to be made.  mask: a file with the brain.
    device: where the physics runs.  instances: what is in `input_dir`, where it was read already.
    Returns 0 if at least one was reconstructed, 3 if there was none that can be.  Returns 1 if one failed for another
    cause, a disk or a fault of this software; the others are done nevertheless.
    """
    found = read(input_dir) if instances is None else instances
    groups = ordered(group(found, RECEIVED, 0.0, frozenset()))
    complete = [g for g in groups if g.completeness is Completeness.COMPLETE]
    for other in groups:
        if other.completeness is not Completeness.COMPLETE:
            _say(f"{_name(other)}: {other.completeness}: {other.reason}")
    if not groups:
        _say(f"no MR images that can be read below {input_dir}")
    done = failed = 0
    for place, acquired in enumerate(complete, 1):
        folder = out_dir if len(complete) == 1 else out_dir / str(place)
        _say(f"{_name(acquired)}: reconstructing into {folder}")
        try:
            folder.mkdir(parents=True, exist_ok=True)  # what cannot be written should be known before the work
            outcome = reconstruct_group(acquired, recipe, time.time(), _say, scanners, output, mask, device)
            remove_outputs(folder)
            remove_nifti(folder / "nifti")
            write(outcome, folder)
            if nifti:
                write_nifti(outcome.maps, outcome.source.affine, folder / "nifti")
        except (NotConvertible, UnreadableObject) as error:
            _say(f"{_name(acquired)}: not reconstructible: {error}")
        except (NodeError, OSError) as error:
            _say(f"{_name(acquired)}: {error}")
            failed += 1
        except Exception:  # noqa: BLE001 - told in full and in the exit code; the other acquisitions are not to blame
            _say(f"{_name(acquired)}: an error of this software; please report it:\n{traceback.format_exc()}")
            failed += 1
        else:
            for warning in outcome.record["warnings"]:
                _say(f"warning: {warning}")
            done += 1
    if failed:
        return FAILED
    return DONE if done else NOTHING_RECONSTRUCTIBLE


def ordered(groups: Sequence[Group]) -> list[Group]:
    """By study, series number and series."""
    return sorted(groups, key=_order)


def _order(acquired: Group) -> tuple[str, int, str, str]:
    first = min(acquired.instances, key=lambda i: (i.series_number, i.series_instance_uid), default=None)
    if first is None:
        return (acquired.study_instance_uid, 0, "", acquired.key)
    return (acquired.study_instance_uid, first.series_number, first.series_instance_uid, acquired.key)


def _name(acquired: Group) -> str:
    numbers = sorted({instance.series_number for instance in acquired.instances})
    return f"series {', '.join(map(str, numbers))} ({len(acquired.instances)} files)"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
