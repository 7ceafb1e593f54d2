from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.cascade.stages import Localizer
from domainseg.phantom import SimulatedFilm, film
from domainseg.phantom.cohort import plan
from domainseg.phantom.detector import SITE, dressed
from domainseg.phantom.settings import Settings

SMALL = Settings(seed=11, reduction=3, turned=0.3)


def films(settings: Settings, wanted: int, **conditions: str) -> Iterator[SimulatedFilm]:
    index = 0
    while wanted:
        chosen = plan(settings, index)
        if all(getattr(chosen, name) == value for name, value in conditions.items()):
            wanted -= 1
            yield film(settings.seed, index, settings)
        index += 1


def shown(made: SimulatedFilm) -> NDArray[np.float64]:
    """0..1, bright = dense."""
    picture = made.pixels / (2**made.site.bits - 1)
    return 1 - picture if made.site.photometric == "MONOCHROME1" else picture


def disc(shape: tuple[int, ...], x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.indices(shape)
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 < radius**2)


def test_same_seed_and_index_same_film_another_seed_another() -> None:
    one, again, other = film(11, 4, SMALL), film(11, 4, SMALL), film(12, 4, SMALL)
    np.testing.assert_array_equal(one.pixels, again.pixels)
    assert one.pixels.shape != other.pixels.shape or not np.array_equal(one.pixels, other.pixels)


def test_head_and_masks_lie_on_bright_bone() -> None:
    seen = 0
    for made in films(SMALL, 8, view="pelvis_ap"):
        picture = cv2.GaussianBlur(shown(made), (0, 0), 1)
        for hip in made.hips:
            if hip.implant or hip.fracture_class == "displaced":
                continue
            seen += 1
            inside = disc(picture.shape, hip.x, hip.y, 0.4 * hip.diameter)
            upright = np.rot90(inside, made.plan.turns)
            picture_up = np.rot90(picture, made.plan.turns)
            rows, columns = np.nonzero(upright)
            # Beside the head, as far lateral as the trochanter reaches and above it, there is soft tissue only.
            lateral = -1 if hip.part == "hip_left" else 1
            x = int(columns.mean() + lateral * 0.95 * hip.diameter)
            y = int(rows.mean() - 0.9 * hip.diameter)
            if 3 < x < picture_up.shape[1] - 3:
                assert picture_up[upright].mean() > picture_up[y - 2 : y + 3, x - 2 : x + 3].mean() + 0.08
            assert hip.femur[inside].mean() > 0.98
            if hip.line is not None:
                assert hip.line.any()
                assert (hip.line & hip.femur).sum() > 0.9 * hip.line.sum()
    assert seen >= 6


def test_the_truth_turns_with_the_film() -> None:
    turned = next(made for made in films(SMALL, 30, view="pelvis_ap") if made.plan.turns % 2)
    assert turned.pixels.shape[0] > turned.pixels.shape[1]
    upright = film(11, turned.plan.index, Settings(seed=11, reduction=3, turned=0.0))
    np.testing.assert_array_equal(np.rot90(turned.pixels, turned.plan.turns), upright.pixels)
    for hip, straight in zip(turned.hips, upright.hips, strict=True):
        np.testing.assert_array_equal(np.rot90(hip.femur, turned.plan.turns), straight.femur)
        spot = np.zeros(turned.pixels.shape)
        spot[round(hip.y), round(hip.x)] = 1
        row, column = np.argwhere(np.rot90(spot, turned.plan.turns))[0]
        assert abs(row - straight.y) <= 1
        assert abs(column - straight.x) <= 1


def test_metal_is_brighter_than_bone() -> None:
    settings = Settings(seed=5, reduction=3, implant=1.0, fracture=0.0, turned=0.0)
    for made in films(settings, 4, view="pelvis_ap"):
        picture = shown(made)
        for hip in made.hips:
            near = disc(picture.shape, hip.x, hip.y, 1.5 * hip.diameter)
            assert np.quantile(picture[near], 0.985) > 0.80, hip.implant


def test_hairlines_are_narrow_and_real() -> None:
    """A hairline is under 1 mm, is in the pixels along its mask, and vanishes on a film reduced to 224 px."""
    base = {"seed": 7, "fracture": 1.0, "implant": 0.0, "turned": 0.0, "mimics": 0.0, "classes": {"hairline": 1.0}}
    settings = Settings(**base)
    bare = Settings(**base, fracture_contrast=0.0)
    found = 0
    for made in films(settings, 2, view="pelvis_ap"):
        without = film(7, made.plan.index, bare)
        change = np.abs(shown(made) - shown(without))
        for hip in made.hips:
            if hip.line is None:
                continue
            found += 1
            assert hip.width_mm < 1
            assert change[hip.line].mean() > 5 * change[~hip.line].mean()
            assert np.quantile(change[hip.line], 0.95) > 0.01
            small = cv2.resize(shown(made) - shown(without), (224, 224), interpolation=cv2.INTER_AREA)
            near = cv2.resize(hip.line.astype(np.float32), (224, 224), interpolation=cv2.INTER_AREA) > 0.1
            assert np.quantile(np.abs(small)[near], 0.9) < 0.6 * np.quantile(change[hip.line], 0.9)
    assert found


@pytest.mark.parametrize("part", ["chest", "knee", "hand", "shoulder", "spine", "skull"])
def test_other_parts_have_no_hips(part: str) -> None:
    settings = Settings(seed=2, reduction=6, views={"other": 1.0})
    made = next(films(settings, 1, part=part))
    assert made.hips == ()
    assert shown(made).std() > 0.05


@pytest.mark.parametrize("view", ["hip_ap", "hip_lateral", "frog_leg"])
def test_single_hips_and_other_views(view: str) -> None:
    settings = Settings(seed=2, reduction=6, views={view: 1.0}, turned=0.0)
    made = film(2, 0, settings)
    names = {hip.part for hip in made.hips}
    assert names == (
        {"hip_left", "hip_right"} if view == "frog_leg" else {"hip_left" if made.plan.side == "R" else "hip_right"}
    )


def test_where_the_site_shows_is_a_setting() -> None:
    """Outside only: all sites draw a hip alike; inside only: all have the same letter on a film of the same size."""
    outside = [dressed(SITE[name], "outside") for name in "ABC"]
    assert len({(site.sigmoid, site.dose, site.edge, site.blur_mm, site.spacing) for site, _ in outside}) == 1
    assert len({around.marker for _, around in outside}) == 3
    assert len({(site.rows, site.columns) for site, _ in outside}) == 1
    inside = [dressed(SITE[name], "inside") for name in "ABC"]
    assert len({site.sigmoid for site, _ in inside}) == 3
    assert len({around.marker for _, around in inside}) == 1
    widths = [site.columns * site.spacing for site, _ in inside]
    assert max(widths) - min(widths) < 1


@pytest.mark.parametrize(("index", "ward"), [(0, "emergency"), (1, "inpatient"), (2, "inpatient")])
def test_what_lies_outside_shows_nowhere_in_a_region_of_interest(index: int, ward: str) -> None:
    """The same patient at each site, with its marker, collimation and text: all pixels of the ROIs are the same."""
    settings = {"departments": {ward: 1.0}, "views": {"pelvis_ap": 1.0}, "turned": 0.0, "reduction": 4}
    made = [film(5, index, {**settings, "sites": {site: 1.0}, "confounder_place": "outside"}) for site in "ABC"]
    pictures = [shown(one) for one in made]
    localizer = Localizer()
    rows, columns = np.indices(pictures[0].shape)
    inside = np.zeros(pictures[0].shape, bool)
    for hip in made[0].hips:
        side = 1 if hip.part == "hip_right" else -1
        x, y = hip.x + side * localizer.lateral * hip.diameter, hip.y + localizer.distal * hip.diameter
        half = localizer.roi_heads * hip.diameter / 2
        inside |= (abs(columns - x) <= half) & (abs(rows - y) <= half)
    assert len(made[0].hips) == 2
    for other in pictures[1:]:
        assert other.shape == pictures[0].shape
        assert np.abs(other - pictures[0])[inside].max() < 0.001  # sites store other numbers of grey values
        assert np.abs(other - pictures[0])[~inside].max() > 0.1
