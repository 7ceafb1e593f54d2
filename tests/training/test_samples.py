"""What stages train on: ROIs as imperfect as in use, filters that were passed, planes that lie on one another."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.operations import preprocess
from domainseg.cascade.stages import PARTS, Stage
from domainseg.cascade.truth import Truth
from domainseg.data.cache import Cache
from domainseg.data.manifest import Manifest, build_manifest
from domainseg.imaging import read_film
from domainseg.imaging.geometry import inverse, quarter_turns, transform
from domainseg.tasks.items import Item
from domainseg.training import hips
from domainseg.training.hips import Hips
from domainseg.training.samples import Films, Head, Sampler, found_heads, head_errors, jittered_heads, true_heads
from domainseg.training.stages import new_stage

ERRORS = pd.DataFrame({"dx": [0.0, 0.1, -0.2], "dy": [0.05, 0.0, 0.3], "log_diameter": [0.0, 0.2, -0.1]})


def made_heads(n: int) -> dict[tuple[str, str], list[Head]]:
    rng = np.random.default_rng(5)
    return {(f"f{k}", "hip_left"): [(rng.uniform(50, 200, 2), float(rng.uniform(15, 40)))] for k in range(n)}


def test_jittered_heads_err_as_the_localizer_does() -> None:
    """Each error is one of the rows, drawn whole and equally often, in units of the head's diameter."""
    heads = made_heads(20)
    moved = jittered_heads(heads, ERRORS, variants=150, seed=3)
    rows = []
    for key, (truth,) in heads.items():
        assert len(moved[key]) == 150
        for center, diameter in moved[key]:
            rows.append([*((center - truth[0]) / truth[1]), np.log(diameter / truth[1])])
    distance = np.abs(np.array(rows)[:, None] - ERRORS.to_numpy()[None]).max(2)
    assert (distance.min(1) < 1e-9).all()
    share = np.bincount(distance.argmin(1), minlength=3) / len(rows)
    np.testing.assert_allclose(share, 1 / 3, atol=4 * np.sqrt(2 / 9 / len(rows)))


def test_jitter_depends_on_the_seed_only() -> None:
    heads = made_heads(4)
    one, same, other = (jittered_heads(heads, ERRORS, variants=5, seed=seed) for seed in (1, 1, 2))
    flat = [
        np.array([[*center, size] for moved in found.values() for center, size in moved])
        for found in (one, same, other)
    ]
    np.testing.assert_array_equal(flat[0], flat[1])
    assert not np.allclose(flat[0], flat[2])


def test_without_errors_a_spread_of_three_percent_is_assumed() -> None:
    heads = made_heads(5)
    moved = jittered_heads(heads, ERRORS.iloc[:0], variants=200, seed=0)
    offsets = np.concatenate(
        [[(c - heads[key][0][0]) / heads[key][0][1] for c, _ in found] for key, found in moved.items()]
    )
    assert offsets.std() == pytest.approx(0.03, rel=0.15)
    assert abs(offsets.mean()) < 0.01


def test_head_errors_are_in_diameters_without_gross_misses_in_a_fixed_order() -> None:
    true: dict[tuple[str, str], list[Head]] = {
        (f"f{k:02}", "hip_left"): [(np.array([100.0, 50.0]), 20.0)] for k in range(30)
    }
    found: dict[tuple[str, str], list[Head]] = {
        key: [(np.array([100.0 + k / 5, 52.0]), 22.0)] for k, key in enumerate(sorted(true))
    }
    found["f03", "hip_left"] = [(np.array([110.5, 50.0]), 20.0)]  # 10.5 of 20 away
    found["elsewhere", "hip_left"] = [(np.zeros(2), 1.0)]
    errors = head_errors(dict(reversed(found.items())), true)
    expected = [k / 100 for k in range(30) if k != 3]
    np.testing.assert_allclose(errors["dx"], expected, atol=1e-12)
    np.testing.assert_allclose(errors["dy"], 0.1)
    np.testing.assert_allclose(errors["log_diameter"], np.log(1.1))


@pytest.fixture
def stages(toy_cfg: dict[str, Any]) -> dict[str, Stage]:
    """The four toys; their thresholds need no tune films."""
    return {name: new_stage(name, toy_cfg["stage"][name], "cpu", seed=0) for name in toy_cfg["stages"]}


def sampler_of(manifest: Manifest, folder: Path) -> Sampler:
    return Sampler(Films(manifest), Truth(manifest), Cache(folder, 10**9))


def behind(stages: dict[str, Stage], name: str) -> Cascade:
    """The stages before one."""
    names = list(stages)
    return Cascade([stages[other] for other in names[: names.index(name)]])


def fracture_items(films: Manifest, stages: dict[str, Stage], folder: Path) -> tuple[list[Any], Counter[str]]:
    train = films.split("train")
    heads = true_heads(Truth(train), list(train.images["image"]))
    report: Counter[str] = Counter()
    return sampler_of(train, folder).hips(stages["fracture"], behind(stages, "fracture"), heads, report), report


def test_hips_with_metal_are_left_out_and_counted(
    toy_films: Manifest, stages: dict[str, Stage], tmp_path: Path
) -> None:
    items, report = fracture_items(toy_films, stages, tmp_path)
    targets = toy_films.split("train").targets
    hips = targets[targets["label_localizer"] == 1]
    metal = hips["label_implant_filter"] == 1
    assert metal.sum() >= 2
    used = hips[~metal]
    assert {(item.image, item.part) for item in items} == set(zip(used["image"], used["part"], strict=True))
    labels = {
        (image, part): label for image, part, label in used[["image", "part", "label_fracture"]].itertuples(index=False)
    }
    for item in items:
        assert item.truth["fracture"] == labels[item.image, item.part]
        assert item.truth["location"] == (2 if item.truth["fracture"] else 0)
    counts = Counter(f"used_label_{int(label)}" for label in used["label_fracture"])
    counts += Counter(f"excluded_by_implant_filter_label_{int(label)}" for label in hips.loc[metal, "label_fracture"])
    assert report == counts


def test_films_that_the_view_filter_stops_are_left_out_and_counted(
    toy_films: Manifest, stages: dict[str, Stage], tmp_path: Path
) -> None:
    train = toy_films.split("train")
    blind = replace(stages["view_filter"], frozen=replace(stages["view_filter"].frozen, threshold=2.0))
    report: Counter[str] = Counter()
    items = sampler_of(train, tmp_path).localizer(stages["localizer"], Cascade([blind]), report)
    assert items == []
    frontal = int((train.targets["label_view_filter"] == 1).sum())
    assert report["excluded_by_view_filter_label_1"] == frontal


def test_a_cached_sample_is_the_fresh_one(toy_films: Manifest, stages: dict[str, Stage], tmp_path: Path) -> None:
    """To half a grey level of sixteen bits; and the second time nothing is made anew."""
    train = toy_films.split("train")
    stage = replace(stages["view_filter"], preprocessing=[{"op": "fit", "size": 90}, {"op": "stretch"}])
    sampler = sampler_of(train, tmp_path)
    items = sampler.view(stage)
    assert len(items) == len(train) >= sampler.cache.built > 0
    for item in items:
        fresh = preprocess(Case.of(item.image, read_film(train.path(item.image))), stage.preprocessing)
        assert np.abs(item.picture() - fresh.pixels).max() <= 0.51 / 65535
        np.testing.assert_allclose(item.affine, fresh.affine)
    again = sampler_of(train, tmp_path)
    for one, other in zip(items, again.view(stage), strict=True):
        np.testing.assert_array_equal(one.planes(), other.planes())
    assert again.cache.built == 0


def test_a_cached_roi_is_the_one_that_is_seen_in_use(
    toy_films: Manifest, stages: dict[str, Stage], tmp_path: Path
) -> None:
    """Where the localizer finds the true head, training and prediction cut out the same picture."""
    items, _ = fracture_items(toy_films, stages, tmp_path)
    seen = {}

    def watch(batch: np.ndarray) -> dict[str, np.ndarray]:
        seen["batch"] = batch
        return stages["fracture"].network(batch)

    def place(batch: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "presence": np.full((1, 2), 9, np.float32),
            "center": ((transform(inverse(frame), list(heads)) + 0.5) / 160)[None],
            "diameter": np.full((1, 2), np.log(20 / 320), np.float32),
        }

    image = "f00"
    film = read_film(toy_films.path(image))
    frame = preprocess(Case.of(image, film), [{"op": "fit", "size": 160}]).affine
    rows = toy_films.targets[(toy_films.targets["image"] == image) & (toy_films.targets["label_localizer"] == 1)]
    heads = rows.sort_values("part")[["x", "y"]].to_numpy()
    cascade = [stages["view_filter"], replace(stages["localizer"], network=place), stages["implant_filter"]]
    Cascade([*cascade, replace(stages["fracture"], network=watch)]).run(Case.of(image, film))
    for batch, item in zip(seen["batch"], [item for item in items if item.image == image], strict=True):
        np.testing.assert_allclose(item.picture(), batch[0], atol=1e-4)


def test_masks_lie_on_what_they_outline(toy_films: Manifest, stages: dict[str, Stage], tmp_path: Path) -> None:
    """The line is the only dark thing in a ROI: the mask's plane covers it, on both sides and on a turned film."""
    items, _ = fracture_items(toy_films, stages, tmp_path)
    broken = [item for item in items if item.truth["fracture"]]
    assert {item.part for item in broken} == {"hip_left", "hip_right"}
    assert any(item.image == "f04" for item in items)
    for item in broken:
        dark, mask = item.picture() < 0.15, item.mask("lesion")
        assert mask is not None
        assert dark.sum() > 50
        assert mask[dark].all()
        around = cv2.dilate(dark.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert around[mask].all()
    assert all(item.masks == () for item in items if not item.truth["fracture"])


def test_heads_lie_on_the_upright_picture(toy_films: Manifest, stages: dict[str, Stage], tmp_path: Path) -> None:
    """Points of the plane map back to the source; around them the picture is as bright as a head, turned films too."""
    train = toy_films.split("train")
    items = sampler_of(train, tmp_path).localizer(stages["localizer"], behind(stages, "localizer"), Counter())
    frontal = train.targets.loc[train.targets["label_view_filter"] == 1, "image"]
    assert [item.image for item in items] == list(frontal)
    known = Truth(train)
    for item in items:
        heads = np.array(item.truth["heads"])
        assert item.truth["known"] == [True, True]
        for head, part in zip(heads, ("hip_left", "hip_right"), strict=True):
            row = known.part(item.image, part)
            np.testing.assert_allclose(transform(item.affine, head[:2]), [row["x"], row["y"]], atol=1e-9)
            assert head[2] == pytest.approx(10)  # 20 source pixels at half the size
            x, y = head[:2].round().astype(int)
            assert np.abs(item.picture()[y - 2 : y + 3, x - 2 : x + 3] - 0.8).max() < 0.02
        assert heads[0, 0] < heads[1, 0]
    turned = next(item for item in items if item.image == "f04")
    np.testing.assert_allclose(turned.affine[:2, :2] / 2, quarter_turns((320, 240), 1)[:2, :2], atol=1e-9)


def test_found_heads_are_in_source_pixels(toy_films: Manifest, stages: dict[str, Stage]) -> None:
    tune = toy_films.split("tune")
    found = found_heads(Films(tune), behind(stages, "implant_filter"), "tune")
    true = true_heads(Truth(tune), list(tune.images["image"]))
    assert set(found) == set(true)
    for key, ((center, diameter),) in found.items():
        assert np.hypot(*(center - true[key][0][0])) < 1
        assert diameter == pytest.approx(20, rel=0.1)


def test_heads_are_found_on_the_film_as_it_is_known_to_lie(toy_films: Manifest, stages: dict[str, Stage]) -> None:
    """A view filter that turns each film by half: without the true turn left would be right in what is learned."""
    tune = toy_films.split("tune")

    def wrong(pictures: np.ndarray) -> dict[str, np.ndarray]:
        outputs = stages["view_filter"].network(pictures)
        return {**outputs, "turn": np.roll(outputs["turn"], 2, axis=-1)}

    before = behind(stages, "implant_filter")
    misled = Cascade([replace(before.stages[0], network=wrong), *before.stages[1:]])
    found, same = found_heads(Films(tune), before, "tune"), found_heads(Films(tune), misled, "tune")
    assert found.keys() == same.keys()
    for key, ((center, _),) in found.items():
        np.testing.assert_allclose(same[key][0][0], center)


def test_a_film_is_fractured_though_the_hip_is_no_sample(tmp_path: Path) -> None:
    """Its head was not found, it has metal, or only the film is labelled: beside it the cascade would look too good."""
    rows = [
        ("a", "hip_left", 0), ("a", "hip_right", 1), ("b", "hip_left", 0), ("b", "whole", 1), ("c", "hip_left", 0),
        ("c", "hip_right", 0), ("d", "hip_left", 0), ("d", "hip_right", np.nan),
    ]  # fmt: skip
    targets = pd.DataFrame([{"image": i, "part": part, "label_fracture": label, "x": 9.0} for i, part, label in rows])
    targets.loc[targets["part"] == "whole", "x"] = np.nan
    images = pd.DataFrame({"image": list("abcd"), "patient": list("abcd")}, dtype=object)
    films = build_manifest(images, targets.astype(object).where(targets.notna(), ""), tmp_path, "four")
    lessons = SimpleNamespace(builder=SimpleNamespace(train=films))
    intact = [Item(image, "hip_left", np.zeros, np.eye(3), {"fracture": 0}) for image in "abcd"]
    assert Hips._label_films(lessons, intact) == {"a": 1, "b": 1, "c": 0}  # type: ignore[arg-type]


def test_a_labelled_hip_without_a_head_is_counted(
    toy_films: Manifest, stages: dict[str, Stage], tmp_path: Path
) -> None:
    train = toy_films.split("train")
    heads = true_heads(Truth(train), list(train.images["image"]))
    image = next(image for image, part in heads if part == "hip_left" and (image, "hip_right") in heads)
    label = Truth(train).label("fracture", image, "hip_right")
    del heads[image, "hip_right"]
    report: Counter[str] = Counter()
    sampler_of(train, tmp_path).hips(stages["fracture"], behind(stages, "fracture"), heads, report)
    assert report[f"head_unknown_label_{int(label)}"] == 1


def test_hips_without_a_mark_are_looked_for_on_films_with_one(
    toy_films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who marks the broken hip alone, and labels both, has taught with the other one as well."""
    train = toy_films.split("train")
    both = [image for image in train.images["image"] if len(true_heads(Truth(train), [image])) == 2]
    targets = train.targets.copy()
    right = (targets["image"] == both[0]) & (targets["part"] == "hip_right")
    place = ["x", "y", "diameter"]
    targets.loc[right, place] = np.nan
    absent = (targets["image"] == both[1]) & (targets["part"] == "hip_right")
    targets.loc[absent, [*place, "label_fracture"]] = np.nan
    targets.loc[absent, "label_localizer"] = 0
    partly = replace(train, targets=targets)
    asked: list[str] = []

    def find(films: Films, upto: Cascade, what: str, images: list[str]) -> dict[tuple[str, str], list[Head]]:
        asked.extend(images)
        return {(image, part): [(np.zeros(2), 9.0)] for image in images for part in PARTS}

    monkeypatch.setattr(hips, "found_heads", find)
    lessons = SimpleNamespace(builder=SimpleNamespace(train=partly), _films=lambda manifest: None)
    heads = Hips._find_heads(lessons, Cascade([]), "true", 1)  # type: ignore[arg-type]
    assert both[0] in asked
    assert not {both[1], *both[2:]} & set(asked)
    assert heads[both[0], "hip_right"][0][1] == 9
    assert heads[both[0], "hip_left"][0][1] == true_heads(Truth(train), both[:1])[both[0], "hip_left"][0][1]


def test_a_mask_that_was_drawn_anew_is_used(toy_films: Manifest, stages: dict[str, Stage], tmp_path: Path) -> None:
    """The cache knows samples by what masks hold, not by what they are called."""
    root = tmp_path / "films"
    shutil.copytree(toy_films.root, root)
    films = replace(toy_films, root=root)
    before = next(item for item in fracture_items(films, stages, tmp_path / "cache")[0] if item.truth["fracture"])
    old = before.mask("lesion")
    cell = Truth(films).part(before.image, before.part)["masks"][0]
    mask = np.zeros_like(cv2.imread(str(root / cell), cv2.IMREAD_GRAYSCALE))
    cv2.imwrite(str(root / cell), mask)
    after = next(
        item
        for item in fracture_items(films, stages, tmp_path / "cache")[0]
        if (item.image, item.part) == (before.image, before.part)
    )
    assert old is not None
    assert old.any()
    assert not np.any(after.mask("lesion"))


def test_frontal_films_without_a_named_view_are_learned_from_and_others_told(
    toy_films: Manifest, stages: dict[str, Stage], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A table with label_view_filter alone, as in the manual."""
    train = toy_films.split("train")
    bare = replace(train, targets=train.targets.assign(label_view=""))
    frontal = set(train.targets.loc[train.targets["label_view_filter"] == 1, "image"])
    items = sampler_of(bare, tmp_path).view(stages["view_filter"])
    assert {item.image for item in items} == frontal
    assert {item.truth["view"] for item in items} == {0}
    others = train.targets.loc[train.targets["label_view_filter"] == 0, "image"].nunique()
    assert f"{others} films that are not frontal teach nothing" in caplog.text
