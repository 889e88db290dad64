"""The size that a codestream tells is that of the image that was compressed; any bytes have one or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import generate_frames
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from dicom_node.codestream import size_of
from tests.objects import mr_image, with_meta


def compressed(syntax: UID, rows: int = 48, columns: int = 64) -> bytes:
    image = with_meta(mr_image(rows=rows, columns=columns), ExplicitVRLittleEndian)
    image.compress(syntax, generate_instance_uid=False)
    (frame,) = generate_frames(image.PixelData, number_of_frames=1)
    return bytes(frame)


@pytest.mark.parametrize(
    ("syntax", "size"), [(JPEG2000Lossless, (48, 64)), (JPEGLSLossless, (48, 64)), (RLELossless, None)]
)
def test_the_size_is_that_of_the_image(syntax: UID, size: tuple[int, int] | None) -> None:
    assert size_of(compressed(syntax)) == size


def test_a_comment_comes_before_it() -> None:
    frame = compressed(JPEGLSLossless)
    assert size_of(frame[:2] + b"\xff\xff\xff\xfe\x00\x06ABCD" + frame[2:]) == (48, 64)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51"]))
def test_any_bytes_have_a_size_or_none(rest: bytes, start: bytes) -> None:
    size = size_of(start + rest)
    assert size is None or len(size) == 2


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_cut_off_it_tells_none_or_the_same(syntax: UID) -> None:
    frame = compressed(syntax)
    assert {size_of(frame[:cut]) for cut in range(60)} <= {None, (48, 64)}
