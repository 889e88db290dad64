"""What a person sees in Orthanc's web viewer: the map in its window, the slices in anatomical order, nothing turned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.encode import encode
from tests.browser import Browser, running_browser
from tests.dicom_node.encode.example import CREATED, PLAIN, SHAPE, maps, recipe, save, source
from tests.peers import running_orthanc, wait_until

pytestmark = pytest.mark.orthanc

LOW, HIGH = -150.0, 200.0
"""ppb, black and white."""

LEVELS = 4.0
"""Of 255: the viewer shows images as JPEG.  The slices of the ramp lie three times as far apart, its columns half."""

RAMP_PPB = (8.0, 4.0, 18.0)
"""How much χ grows from voxel to voxel along x, y and z, so that every turn and every exchange of slices is seen."""

GO_TO = "$('#slider').slider('option', 'slide')(null, {value: arguments[0]})"
SHOWN = """
if (!window.cornerstone) return null;
const enabled = cornerstone.getEnabledElement($('#dicomImage').get(0));
return enabled.image ? [enabled.image.imageId, enabled.image.windowCenter, enabled.image.windowWidth] : null;
"""
GREYS = """
const element = $('#dicomImage').get(0), viewport = cornerstone.getViewport(element);
viewport.scale = arguments[2];
cornerstone.setViewport(element, viewport);
cornerstone.draw(element);
const canvas = $('#dicomImage canvas').get(0).getContext('2d');
return [...Array(arguments[1]).keys()].map(row => [...Array(arguments[0]).keys()].map(column => {
  const at = cornerstone.pixelToCanvas(element, {x: column + 0.5, y: row + 0.5});
  return [at.x, at.y, canvas.getImageData(at.x, at.y, 1, 1).data[0]];
}));
"""
"""Where on the screen each voxel's middle is, and the grey that is there: (row, column, 3)."""

ZOOM = 25.0
"""Screen pixels for the shorter side of a voxel: the viewer opens a series with its taller voxels beyond the screen."""


@pytest.fixture(scope="module")
def series() -> list[Dataset]:
    """The slices of a map, from the feet to the head."""
    ramp = -0.14 + np.tensordot(np.array(RAMP_PPB) * 1e-3, np.indices(SHAPE), 1)
    encoded = encode(maps(chi=ramp.astype(np.float32)), source(), recipe(), CREATED, PLAIN)
    slices = [d for d in encoded.datasets if d.get("SeriesDescription") == "QSM (ppb)"]
    along = np.cross(slices[0].ImageOrientationPatient[:3], slices[0].ImageOrientationPatient[3:])
    assert along[2] > 0.9
    return sorted(slices, key=lambda d: float(along @ np.array(d.ImagePositionPatient, float)))


@pytest.fixture(scope="module")
def viewer(
    series: list[Dataset],
    orthanc_command: Path,
    orthanc_webviewer: Path,
    chromedriver_command: Path,
    chromium_command: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Browser]:
    """The viewer with the series opened; the archive was given the last slice first."""
    root = tmp_path_factory.mktemp("viewer")
    with running_orthanc(orthanc_command, root / "orthanc", plugins=[orthanc_webviewer]) as archive:
        for path in reversed(save(series, root)):
            archive.post_file(path)
        (identifier,) = archive.get("series")
        with running_browser(chromedriver_command, chromium_command, root / "profile") as browser:
            browser.look_as(800, height=800)
            browser.load(f"{archive.url}/web-viewer/app/viewer.html?series={identifier}")
            wait_until(lambda: browser.run(SHOWN), "the viewer shows a slice", 30)
            yield browser


def test_the_window_shows_the_brain_at_once(viewer: Browser) -> None:
    _, centre, width = viewer.run(SHOWN)
    assert (centre - width / 2, centre + width / 2) == (LOW, HIGH)
    assert f"WW/WL:{width:g}/{centre:g}" in viewer.text


def test_slices_come_from_feet_to_head_as_they_lie_in_the_patient(viewer: Browser, series: list[Dataset]) -> None:
    for place, dataset in enumerate(series):
        # Columns run to the patient's left and to the right of the screen, rows to the back and down.
        assert dataset.ImageOrientationPatient[0] > 0.9 < dataset.ImageOrientationPatient[4]
        ppb = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        expected = np.clip((ppb - LOW) / (HIGH - LOW), 0, 1) * 255
        inner = np.s_[2:-2, 2:-2] if ppb.any() else np.s_[:, :]
        viewer.run(GO_TO, place)

        def shown(expected: NDArray[np.float64] = expected, inner: tuple[slice, slice] = inner) -> bool:
            x, y, grey = np.moveaxis(np.array(viewer.run(GREYS, SHAPE[0], SHAPE[1], ZOOM), float), -1, 0)
            upright = (np.diff(x, axis=1) > 0).all() and (np.diff(y, axis=0) > 0).all()
            return bool(upright and np.abs(grey - expected)[inner].mean() < LEVELS)

        wait_until(shown, f"slice {place} is shown in its place, upright and in its window", 10)
