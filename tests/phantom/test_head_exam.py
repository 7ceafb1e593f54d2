"""Simulated heads against what must be so: volumes in closed form, HU of tissues, blood where its type belongs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import ndimage

from domainseg.files import DomainsegError
from domainseg.imaging.hemorrhage import CODES, MIMICS, TYPES
from domainseg.phantom.heads import anatomy, bleeds, mimics, scan
from domainseg.phantom.heads.cohort import plan
from domainseg.phantom.heads.exam import draw_head, exam
from domainseg.phantom.heads.mimics import Mimic
from domainseg.phantom.heads.settings import HeadSettings

COARSE = scan.scan(pixel=1.7, distance=5, size=128, bottom=-70, top=90, tilt=0, angles=(3, -2, 4), shift=(2, 3), subs=2)


@pytest.fixture(scope="module")
def head():
    return anatomy.shape(np.random.default_rng(5), 55, "M")


@pytest.fixture(scope="module")
def healthy(head):
    return draw_head(head, COARSE, [], [])[0]


def drawn(head, bleed):
    clean, labels, _, _ = draw_head(head, COARSE, [bleed], [])
    return clean, labels == CODES[bleed.kind]


def near(scanned, centre, reach):
    """Voxels whose middle thin slice lies in a box around a place of the head."""
    found = []
    for k in range(scanned.shape[0]):
        place = scanned.place(k)
        inside = [
            np.abs(axis.mean(0) - c) < r for axis, c, r in zip((place.x, place.y, place.z), centre, reach, strict=True)
        ]
        found.append(np.logical_and.reduce(inside))
    return np.stack(found)


@pytest.mark.parametrize(("ml", "uneven"), [(1.5, 0.3), (25.0, 0.12)])
def test_a_bleed_in_the_brain_has_the_volume_of_its_ellipsoid(head, ml, uneven):
    radius = (3 * ml * 1000 / 4 / np.pi) ** (1 / 3)
    axes = (0.8 * radius, 1.25 * radius, radius)
    bleed = bleeds.Bleed("intraparenchymal", "lobe", (33, 5, 30), 1, ml, radius, 70, 17.0, axes)
    clean, mask = drawn(head, bleed)
    assert mask.sum() * COARSE.voxel_ml == pytest.approx(ml, rel=uneven)
    assert clean[mask].mean() == pytest.approx(68, abs=6)  # voxels at its edge hold brain too
    assert near(COARSE, (33, 5, 30), np.array(axes) + 6)[mask].all()


@pytest.mark.parametrize(("kind", "ml"), [("subdural", 30.0), ("epidural", 12.0)])
def test_a_layer_along_the_skull_has_the_planned_volume_and_lies_at_the_bone(head, healthy, kind, ml):
    rng = np.random.default_rng(3)
    base = bleeds.Bleed(kind, "", (0, 0, 0), -1, ml, 0, 70, 3.0)
    bleed = bleeds._along_skull(rng, head, base)
    _, mask = drawn(head, bleed)
    # The floor and the falx cut a little off; the integral over directions does not know them.
    assert mask.sum() * COARSE.voxel_ml == pytest.approx(ml, rel=0.2)
    assert not mask[near(COARSE, (60, 0, 0), (58, 200, 200))].any()  # on the right, as planned
    bone = ndimage.distance_transform_edt(healthy < 250, sampling=(5, 1.7, 1.7))
    assert bone[mask].max() < bleed.size + 4
    assert np.percentile(bone[mask], 10) < 4


def test_blood_in_ventricles_and_sulci_takes_the_place_of_fluid(head, healthy):
    inside = bleeds.Bleed("intraventricular", "layer", (0, 0, 0), 1, 5, 0.3, 65, 9.0)
    _, mask = drawn(head, inside)
    assert mask.sum() * COARSE.voxel_ml > 0.5
    assert healthy[mask].mean() < 15
    around = bleeds.Bleed("subarachnoid", "cisterns", (0, -6, -18), 1, 5, 30, 60, 9.0)
    clean, mask = drawn(head, around)
    assert mask.sum() * COARSE.voxel_ml > 2
    assert healthy[mask].mean() < healthy[near(COARSE, (30, 0, 35), (12, 20, 8))].mean() - 6
    assert clean[mask].mean() > healthy[mask].mean() + 15


def test_tissues_have_their_hounsfield_units(healthy):
    assert healthy[near(COARSE, (24, 0, 36), (8, 15, 6))].mean() == pytest.approx(29, abs=4)  # white matter
    assert healthy[near(COARSE, (11, 0, 20), (3, 6, 4))].min() < 12  # a ventricle
    assert healthy.max() > 1000
    assert healthy.min() == pytest.approx(-1000, abs=0.1)
    cavity = near(COARSE, (0, 0, 30), (35, 45, 12))
    assert np.percentile(healthy[cavity], 1) > -5
    assert np.percentile(healthy[cavity], 99) < 60


def test_lookalikes_are_marked_where_they_are(head, healthy):
    clip = Mimic("choroid_calcification", (23.0, 36.0, 8.0), (4, 6, 4), 250.0)
    thick = Mimic("falx_thickening", (0.0, 10.0, 50.0), (2, 30, 20), 65.0)
    clean, labels, found, kinds = draw_head(head, COARSE, [], [clip, thick])
    assert not labels.any()
    assert kinds == ("choroid_calcification", "falx_thickening")
    calcified = found == 1 + MIMICS.index("choroid_calcification")
    assert clean[calcified].mean() > healthy[calcified].mean() + 80
    assert near(COARSE, (23, 36, 8), (9, 10, 9))[calcified].all()
    falx = found == 1 + MIMICS.index("falx_thickening")
    assert near(COARSE, (0, 10, 50), (5, 40, 30))[falx].all()
    assert all(
        mimic.kind in MIMICS for seed in range(20) for mimic in mimics.draw(np.random.default_rng(seed), head, 1)
    )


def test_the_plans_have_the_shares_that_were_asked_for():
    settings = HeadSettings(bleed=0.5, other=0.1, several=0)
    plans = [plan(settings, index) for index in range(1500)]
    heads = [item for item in plans if not item.other]
    assert np.mean([bool(item.other) for item in plans]) == pytest.approx(0.1, abs=0.03)
    assert np.mean([bool(item.bleeds) for item in heads]) == pytest.approx(0.5, abs=0.05)
    first = Counter(item.bleeds[0] for item in heads if item.bleeds)
    for name, share in settings.types.items():
        assert first[name] / first.total() == pytest.approx(share, abs=0.06)
    days = sorted(item.date for item in plans)
    assert (days[0][:7], days[-1][:7]) == ("2021-01", "2022-07")
    assert all((item.tilt > 0) == (item.site == "B") for item in heads)
    assert len({item.patient for item in plans}) == 1500
    with pytest.raises(DomainsegError, match="0 or more"):
        plan(settings, -1)


def test_an_exam_is_a_function_of_seed_and_index_and_every_planned_type_is_there():
    settings = HeadSettings(seed=2, reduction=3, bleed=1.0, other=0.0, several=1.0)
    for index in range(2):
        made = exam(settings, index)
        assert set(made.types) == set(made.plan.bleeds)
        assert made.ml() >= 0.1
        assert sum(made.ml(kind) for kind in TYPES) == pytest.approx(made.ml())
        assert not made.mimics[made.labels > 0].any()
    again = exam(settings, 1)
    assert again.voxels.tobytes() == made.voxels.tobytes()
    assert again.labels.tobytes() == made.labels.tobytes()
    assert exam(HeadSettings(seed=3, reduction=3), 1).voxels.tobytes() != made.voxels.tobytes()


def test_other_parts_of_the_body_have_no_labels():
    made = exam(HeadSettings(reduction=3, other=1.0), 0)
    assert made.plan.other
    assert not made.labels.any()
    assert not made.mimics.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bleed": 2}, "0..1"),
        ({"types": {"extradural": 1}}, "intraparenchymal"),
        ({"reduction": 0.5}, "1..3.5"),
        ({"blood": 1}, "unknown"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(DomainsegError, match=message):
        HeadSettings.of(wrong)
