from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.convert import stack


def test_missing_slices_are_counted():
    assert stack.missing_between([0.0, 2.0, 4.0, 8.0, 10.0, 18.0, 20.0]) == [(2, 1), (4, 3)]
    assert stack.missing_between([0.0, 2.0]) == []


@given(st.lists(st.floats(-100, 100), max_size=30), st.floats(0.01, 1))
def test_clusters_hold_every_value_and_lie_apart(values, tolerance):
    starts = stack.cluster(values, tolerance)
    assert all(any(0 <= value - start <= tolerance for start in starts) for value in values)
    assert all(b - a > tolerance for a, b in pairwise(starts))
    assert set(starts) <= set(values)
