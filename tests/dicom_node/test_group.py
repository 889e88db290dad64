from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.group import group
from dicom_node.model import Completeness, Group, Instance
from tests.dicom_node.instances import AXIAL, CLASSIC, FOR_EACH_ECHO, PHILIPS, I, M, P, R, enhanced, scan

QUIET = 60.0
LATER = 1000.0
"""Long after everything was received."""

LAYOUTS = pytest.mark.parametrize("stacks", [CLASSIC, PHILIPS, FOR_EACH_ECHO], ids=["two", "one", "each echo"])


def groups(instances: Sequence[Instance], now: float = LATER, still_open: str = "") -> list[Group]:
    return group(instances, now, QUIET, frozenset(still_open.split()))


def only(instances: Sequence[Instance], now: float = LATER, still_open: str = "") -> Group:
    (found,) = groups(instances, now, still_open)
    return found


def uids(instances: Sequence[Instance]) -> set[str]:
    return {instance.sop_instance_uid for instance in instances}


def changed(instance: Instance, **attributes: Any) -> Instance:
    """Of the only frame."""
    return dataclasses.replace(instance, frames=(dataclasses.replace(instance.frames[0], **attributes),))


def members(found: Group) -> set[str]:
    return uids((*found.instances, *found.set_aside))


@LAYOUTS
def test_one_scan_is_one_complete_acquisition_however_many_series(stacks):
    found = only(scan(stacks))
    assert found.completeness is Completeness.COMPLETE
    assert (found.echo_times, found.holes, found.set_aside) == ((4.0, 8.0, 12.0), (), ())
    assert len(found.instances) == 3 * 4 * 2


def test_holes_are_named():
    images = [
        i
        for i in scan(slices=20)
        if not (i.frames[0].component is P and i.frames[0].echo_time == 8 and i.frames[0].position[2] in (26, 28, 34))
    ]
    found = only(images)
    assert found.completeness is Completeness.INCOMPLETE
    assert found.holes == ("echo 2 (TE 8 ms) phase: slices 14–15, 18 missing",)
    assert "slices 14–15, 18 missing" in found.reason


def test_an_absent_stack_and_an_absent_component_are_named():
    no_echo = [i for i in scan() if i.frames[0].component is M or i.frames[0].echo_time != 12]
    assert only(no_echo).holes == ("echo 3 (TE 12 ms) phase missing",)
    assert only([i for i in scan() if i.frames[0].component is M]).holes == ("phase missing",)
    assert only([i for i in scan() if i.frames[0].component is P]).holes == ("magnitude missing",)


def test_a_slice_that_is_missing_everywhere_leaves_a_gap():
    found = only([i for i in scan(slices=9) if i.frames[0].position[2] != 8])
    assert found.holes == ("1 slice missing between slices 4 and 5",)


def test_a_late_image_completes():
    images = scan()
    before = only(images[:-1])
    after = only(images)
    assert (before.completeness, after.completeness) == (Completeness.INCOMPLETE, Completeness.COMPLETE)
    assert before.key == after.key


def test_waiting_until_the_association_ends_or_it_was_quiet():
    images = scan(PHILIPS, received_at=100)
    assert only(images, now=101, still_open="1").completeness is Completeness.WAITING
    assert only(images, now=101).completeness is Completeness.COMPLETE
    assert only(images, now=100 + 2 * QUIET, still_open="1").completeness is Completeness.COMPLETE
    assert only(images[:-1], now=101).completeness is Completeness.WAITING


@pytest.mark.parametrize(("ahead", "is_over"), [(0.05, False), (QUIET - 1, False), (QUIET + 1, True), (86400.0, True)])
def test_images_from_the_future_came_before_the_clock_was_set_back_and_are_not_waited_for(ahead, is_over):
    found = only(scan(slices=4, received_at=LATER + ahead)[:-1])
    assert found.completeness is (Completeness.INCOMPLETE if is_over else Completeness.WAITING)


def test_an_association_for_each_image_ends_by_quiet_only():
    images = [dataclasses.replace(i, association=str(n)) for n, i in enumerate(scan(PHILIPS, received_at=100))]
    assert only(images, now=101).completeness is Completeness.WAITING
    assert only(images, now=100 + 2 * QUIET).completeness is Completeness.COMPLETE


def test_a_series_for_each_echo_never_looks_complete_after_the_first_echo():
    images = scan(FOR_EACH_ECHO, received_at=100)
    first_echo = [i for i in images if i.frames[0].echo_time == 4]
    assert only(first_echo, now=101).completeness is Completeness.WAITING
    assert only(images, now=101).completeness is Completeness.WAITING


@LAYOUTS
@pytest.mark.parametrize("minutes", [2, 6])
def test_repetitions_never_mix(stacks, minutes):
    later = tuple((series + 20, component, echo_times) for series, component, echo_times in stacks)
    one = scan(stacks)
    two = scan(later, name="b", at=f"2024022910{15 + minutes}00.0", received_at=0.005)
    found = groups(one + two)
    assert sorted(members(g) == uids(one) for g in found) == [False, True]
    assert all(g.completeness is Completeness.COMPLETE and not g.set_aside for g in found)


def test_a_repetition_that_is_not_whole_is_not_filled_from_the_other():
    later = tuple((series + 20, component, echo_times) for series, component, echo_times in CLASSIC)
    one, two = scan()[:-1], scan(later, name="b", at="20240229101900.0")
    found = {g.completeness: members(g) for g in groups(one + two)}
    assert found == {Completeness.INCOMPLETE: uids(one), Completeness.COMPLETE: uids(two)}


def test_repetitions_within_one_series_are_told_by_acquisition_number():
    one = scan(PHILIPS, repetition="1/1", at="")
    two = scan(PHILIPS, repetition="1/2", at="", name="b")
    two = [dataclasses.replace(i, series_instance_uid=one[0].series_instance_uid) for i in two]
    assert sorted(map(sorted, map(members, groups(one + two)))) == sorted(map(sorted, (uids(one), uids(two))))


def test_repetitions_whose_times_were_removed_or_made_equal_are_told_by_series_number():
    for at in ("", "20240101000000"):
        one = scan(at=at)
        two = scan(((7, M, (4.0, 8.0, 12.0)), (8, P, (4.0, 8.0, 12.0))), name="b", at=at)
        assert sorted(map(sorted, map(members, groups(one + two)))) == sorted(map(sorted, (uids(one), uids(two))))


def test_two_repetitions_that_cannot_be_told_apart_are_not_guessed():
    one, two = scan(PHILIPS), scan(PHILIPS, name="b")
    two = [dataclasses.replace(i, series_instance_uid=one[0].series_instance_uid) for i in two]
    found = only(one + two)
    assert found.completeness is Completeness.INCOMPLETE
    assert "24 images are there more than once" in found.reason


@LAYOUTS
def test_series_that_carry_their_own_times_are_joined(stacks):
    # An archive may have put the time of the series into the acquisition time.
    one = [changed(i, acquired_at=f"2024022910{i.series_number:02}00") for i in scan(stacks)]
    assert only(one).completeness is Completeness.COMPLETE


def test_another_protocol_is_not_joined():
    one, two = scan(CLASSIC[:1]), scan(CLASSIC[1:], at="20240229101700", protocol="600/15")
    assert len(groups(one + two)) == 2


def test_echo_times_are_compared_with_a_tolerance():
    images = [changed(i, echo_time=i.frames[0].echo_time + 0.001) if i.frames[0].component is P else i for i in scan()]
    assert only(images).echo_times == (4.0, 8.0, 12.0)
    assert only(images).completeness is Completeness.COMPLETE


def test_other_geometry_study_or_frame_of_reference_is_another_acquisition():
    tilt = (1.0, 0.0, 0.0, 0.0, float(np.cos(0.1)), float(np.sin(0.1)))
    for other in ({"orientation": tilt}, {"origin": (-90.0, -120.0)}, {"study": "9"}, {"frame_of_reference": "9"}):
        assert len(groups(scan() + scan(name="b", **other))) == 2


def test_rounded_headers_are_the_same_geometry():
    nearly = (1.0, 0.0, 0.0, 0.0, 1.0, 1e-5)
    assert nearly != AXIAL
    two = scan(CLASSIC[1:], orientation=nearly, origin=(-100.001, -120.0))
    assert only(scan(CLASSIC[:1]) + two).completeness is Completeness.COMPLETE


def test_two_exports_of_one_scan_make_one_group():
    classic = scan(PHILIPS)
    second = enhanced(classic, received_at=50)
    found = only([*classic, second])
    assert (uids(found.instances), uids(found.set_aside)) == (uids(classic), uids([second]))


def test_the_export_that_was_whole_first_is_used():
    classic = scan(PHILIPS, received_at=100)
    found = only([*classic, enhanced(classic, received_at=50)])
    assert len(found.instances) == 1
    assert len(found.set_aside) == len(classic)
    part = only([*classic[:-1], enhanced(classic, received_at=150)])
    assert len(part.instances) == 1


def test_distortion_corrected_rendering_is_set_aside():
    plain = scan()
    stacks = tuple((series + 2, component, echo_times) for series, component, echo_times in CLASSIC)
    corrected = scan(stacks, name="b", processing="DIS2D")
    found = only(plain + corrected)
    assert (uids(found.instances), uids(found.set_aside)) == (uids(plain), uids(corrected))
    assert only(corrected).completeness is Completeness.COMPLETE


def test_normalised_magnitude_goes_with_plain_phase():
    normalised = scan(CLASSIC[:1], processing="NORM", name="n")
    phase = scan(CLASSIC[1:])
    assert only(normalised + phase).completeness is Completeness.COMPLETE
    both = only(normalised + [dataclasses.replace(i, series_number=9) for i in scan(CLASSIC[:1])] + phase)
    assert uids(both.set_aside) == uids(normalised)


def test_real_and_imaginary_do_as_well():
    found = only(scan(((5, R, (4.0, 8.0)), (6, I, (4.0, 8.0)))))
    assert found.completeness is Completeness.COMPLETE
    with_magnitude = only(scan(((4, M, (4.0, 8.0)), (5, R, (4.0, 8.0)), (6, I, (4.0, 8.0)))))
    assert with_magnitude.completeness is Completeness.COMPLETE
    assert len(with_magnitude.set_aside) == 8


def test_a_single_echo_with_phase_is_an_acquisition_but_magnitude_alone_is_foreign():
    assert only(scan(((5, M, (20.0,)), (6, P, (20.0,))))).completeness is Completeness.COMPLETE
    alone = scan(((5, M, (20.0,)),), received_at=100)
    assert only(alone, now=101).completeness is Completeness.WAITING
    found = only(alone)
    assert found.completeness is Completeness.FOREIGN
    assert "single echo" in found.reason


def test_a_dynamic_series_is_one_foreign_group():
    phases = [i for n in range(5) for i in scan(((5, M, (2.0,)),), name=f"d{n}", repetition=f"{n}/")]
    series = [dataclasses.replace(i, series_instance_uid="1.2.9") for i in phases]
    assert only(series, now=0).completeness is Completeness.WAITING
    found = only(series)
    assert (found.completeness, len(found.instances)) == (Completeness.FOREIGN, len(series))


def test_phase_of_the_last_echo_alone_is_suspected_to_be_a_difference():
    found = only(scan(((5, M, (4.0, 8.0)), (6, P, (8.0,)))))
    assert found.completeness is Completeness.INCOMPLETE
    assert "phase difference" in found.reason


def test_refused_objects_are_foreign_by_series_at_once():
    localiser = [dataclasses.replace(i, refusal="localiser", frames=()) for i in scan(CLASSIC, name="l")]
    found = groups([*localiser, *scan()], now=0, still_open="1")
    foreign = [g for g in found if g.completeness is Completeness.FOREIGN]
    assert [g.reason for g in foreign] == ["localiser", "localiser"]
    assert set().union(*map(members, foreign)) == uids(localiser)


def test_uncombined_coils_are_left_alone_and_the_combined_images_are_used():
    elements = [
        dataclasses.replace(i, coil=f"H{n}")
        for n in (1, 2)
        for i in scan(((5 + 20 * n, M, (4.0, 8.0)), (6 + 20 * n, P, (4.0, 8.0))), name=f"coil{n}")
    ]
    found = groups([*elements, *scan()])
    foreign = [g for g in found if g.completeness is Completeness.FOREIGN]
    assert set().union(*map(members, foreign)) == uids(elements)
    assert all("single coil elements" in g.reason for g in foreign)
    assert [members(g) for g in found if g.completeness is Completeness.COMPLETE] == [uids(scan())]


def test_a_coil_of_one_element_is_no_reason():
    one = [dataclasses.replace(i, coil="H1") for i in scan()]
    assert only(one).completeness is Completeness.COMPLETE


def test_slices_that_are_there_twice_in_one_echo_may_be_a_field_map():
    both = [dataclasses.replace(i, series_instance_uid="1.2.9") for n in "ab" for i in scan(((5, M, (7.0,)),), name=n)]
    found = only(both)
    assert found.completeness is Completeness.FOREIGN
    assert "field map in Hz" in found.reason
    assert "field map" not in only(scan(((5, M, (7.0,)),))).reason


def test_the_key_stays_while_the_group_grows():
    images = [*scan(FOR_EACH_ECHO), enhanced(scan(FOR_EACH_ECHO), received_at=5)]
    assert len({only(images[:n]).key for n in range(1, len(images) + 1)}) == 1


def test_no_images_no_groups():
    assert groups([]) == []


# Laws

_STUDY = [
    *scan(PHILIPS),
    *scan(((25, M, (4.0, 8.0, 12.0)), (26, P, (4.0, 8.0, 12.0))), name="b", at="20240229102500"),
    enhanced(scan(PHILIPS), received_at=3),
    *[dataclasses.replace(i, refusal="localiser", frames=()) for i in scan(CLASSIC[:1], name="l", slices=2)],
    *scan(((30, M, (20.0,)),), name="t", at="20240229104000", protocol="2300/9"),
]

unhurried = settings(deadline=None)  # the machine may be busy

subsets = st.lists(st.sampled_from(range(len(_STUDY))), unique=True).map(lambda chosen: [_STUDY[n] for n in chosen])


@unhurried
@given(subsets, st.randoms(use_true_random=False), st.floats(0, 200))
def test_the_order_of_the_images_does_not_matter(images: list[Instance], chance: random.Random, now: float):
    shuffled = chance.sample(images, len(images))
    assert groups(images, now=now) == groups(shuffled, now=now)


@unhurried
@given(subsets, st.floats(0, 200))
def test_every_image_is_in_exactly_one_group(images: list[Instance], now: float):
    found = [i.sop_instance_uid for g in groups(images, now=now) for i in (*g.instances, *g.set_aside)]
    assert sorted(found) == sorted(uids(images))


@unhurried
@given(subsets)
def test_duplicates_change_nothing(images: list[Instance]):
    again = [dataclasses.replace(i, received_at=i.received_at + 1, path=i.path / "again") for i in images[:5]]
    found = [dataclasses.replace(g, set_aside=()) for g in groups(images + again)]
    assert found == [dataclasses.replace(g, set_aside=()) for g in groups(images)]


@unhurried
@given(st.lists(st.sampled_from(range(24)), unique=True, min_size=1))
def test_adding_what_is_missing_completes(missing: list[int]):
    images = scan(PHILIPS)
    part = [image for n, image in enumerate(images) if n not in missing]
    if part:
        assert all(g.completeness is not Completeness.COMPLETE or len(g.instances) < 24 for g in groups(part))
    assert only(part + [images[n] for n in missing]).completeness is Completeness.COMPLETE


@unhurried
@given(st.permutations(range(24)))
def test_the_key_is_stable_in_any_order_of_arrival(order: Sequence[int]):
    images = [dataclasses.replace(image, received_at=float(at)) for at, image in zip(order, scan(PHILIPS), strict=True)]
    images.sort(key=lambda image: image.received_at)
    assert len({only(images[:n]).key for n in range(1, 25)}) == 1
