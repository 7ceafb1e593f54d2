"""What a simulated chest film shows, and what of site and portable films may be seen where."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from domainseg.data.manifest import load_manifest, truth_table
from domainseg.imaging import read_film
from domainseg.imaging.chest import FINDINGS
from domainseg.phantom import contact_sheet, simulate
from domainseg.phantom.chest.border import border
from domainseg.phantom.chest.film import SimulatedChest, film
from domainseg.phantom.chest.settings import ChestSettings
from domainseg.phantom.chest.sites import SITE

HEALTHY = dict.fromkeys(FINDINGS, 0.0)


def settings(**chosen: object) -> ChestSettings:
    return ChestSettings.of({"prevalence": HEALTHY, "reduction": 4, "sites": {"A": 1.0}, **chosen})


def grey(made: SimulatedChest) -> NDArray[np.float32]:
    """Pixels 0..1, bright = dense."""
    pixels = made.pixels.astype(np.float32) / (2**made.site.bits - 1)
    return 1 - pixels if made.site.photometric == "MONOCHROME1" else pixels


def test_a_film_depends_on_settings_and_index_only() -> None:
    chosen = settings(seed=4)
    first = film(chosen, 5)
    film(chosen, 2)
    np.testing.assert_array_equal(first.pixels, film(chosen, 5).pixels)
    assert not np.array_equal(first.pixels, film(settings(seed=5), 5).pixels)


@pytest.mark.parametrize("site", ["A", "B", "C"])
def test_lungs_are_dark_between_bright_mediastinum_and_abdomen(site: str) -> None:
    made = film(settings(seed=1, sites={site: 1.0}, departments={"outpatient": 1.0}), 0)
    picture = cv2.GaussianBlur(grey(made), (0, 0), 2)
    height, width = picture.shape
    middle = picture[int(0.5 * height), int(0.47 * width) : int(0.53 * width)].mean()
    lungs = [picture[int(0.35 * height), int(at * width)] for at in (0.30, 0.70)]
    abdomen = picture[int(0.85 * height), int(0.3 * width)]
    assert max(lungs) < min(middle, abdomen) - 0.2


@pytest.mark.parametrize("finding", list(FINDINGS))
def test_a_finding_changes_the_film_inside_its_box(finding: str) -> None:
    """The same film with the finding and without: what differs lies in the box, beside what the display shifts."""
    shaped = ("cardiomegaly", "emphysema", "fibrosis", "atelectasis")  # move heart or diaphragm too
    changes = []
    for index in (0, 3, 6):
        base = {"seed": 7, "departments": {"outpatient": 1.0}}
        ill, well = film(settings(**base, prevalence={**HEALTHY, finding: 1.0}), index), film(settings(**base), index)
        assert list(ill.boxes) == [finding]
        assert not well.boxes
        x, y, width, height = (round(number) for number in ill.boxes[finding])
        assert 0 <= x < x + width <= ill.pixels.shape[1]
        assert 0 <= y < y + height <= ill.pixels.shape[0]
        change = np.abs(grey(ill) - grey(well))
        inside = np.zeros(change.shape, bool)
        inside[y : y + height, x : x + width] = True
        changes.append((change[inside].mean(), change[~inside].mean()))
    within, beyond = np.mean(changes, axis=0)
    assert within > 0.03
    assert within > (1.4 if finding in shaped else 3.0) * beyond


def test_a_large_heart_is_more_than_half_the_thorax() -> None:
    upright = {"seed": 3, "departments": {"outpatient": 1.0}}
    well = [film(settings(**upright), index) for index in range(6)]
    ill = [film(settings(**upright, prevalence={**HEALTHY, "cardiomegaly": 1.0}), index) for index in range(6)]
    assert max(made.ratio for made in well if made.plan.view == "PA") < 0.5
    assert min(made.ratio for made in ill) > 0.5
    for made in ill:  # the box is that of the heart: ratio times 270 mm, in the patient, magnified
        assert made.boxes["cardiomegaly"][2] * made.spacing == pytest.approx(made.ratio * 270, rel=0.2)


def lung(made: SimulatedChest) -> NDArray[np.float32]:
    """A square of 60 mm in the right lung."""
    height, width = made.pixels.shape
    half = round(30 / made.spacing)
    y, x = round(0.42 * height), round(width / 2 - 75 / made.spacing)
    return grey(made)[y - half : y + half, x - half : x + half]


def look(made: SimulatedChest) -> tuple[float, float]:
    """Grey and noise in the lung."""
    square = lung(made)
    return float(square.mean()), float((square - cv2.GaussianBlur(square, (0, 0), 1.2)).std())


def test_outside_the_lungs_sites_differ_in_film_and_marker_only() -> None:
    """Grey and noise of the lung of the same patients at sites A and C."""

    def gap(place: str) -> tuple[float, float]:
        looks = {
            site: np.mean(
                [look(film(settings(seed=8, sites={site: 1.0}, confounder_place=place), i)) for i in range(4)], axis=0
            )
            for site in ("A", "C")
        }
        mean, noise = np.abs(looks["A"] - looks["C"]) / looks["A"]
        return float(mean), float(noise)

    inside, outside = gap("inside"), gap("outside")
    assert inside[1] > 0.25
    assert outside[1] < 0.10
    assert outside[0] < 0.10
    shapes = {
        place: {film(settings(sites={site: 1.0}, confounder_place=place), 0).pixels.shape for site in ("A", "C")}
        for place in ("inside", "outside")
    }
    (height, width), *more = shapes["inside"]
    assert all(abs(height - other[0]) <= 30 and abs(height / width - other[0] / other[1]) < 0.02 for other in more)
    assert len(shapes["outside"]) == 2


def test_portable_films_show_inside_by_leads_and_outside_by_marker_and_text() -> None:
    """The same patients as inpatients, whose films are portable, and as outpatients."""

    def pair(place: str, index: int) -> list[SimulatedChest]:
        departments = ({"inpatient": 1.0}, {"outpatient": 1.0})
        return [film(settings(seed=9, departments=of, confounder_place=place), index) for of in departments]

    for index in range(3):
        portable, upright = pair("outside", index)
        assert portable.plan.portable
        np.testing.assert_allclose(lung(portable), lung(upright), atol=0.02)
        margin = np.abs(grey(portable) - grey(upright))
        margin[:, 40:-40] = 0
        assert margin.max() > 0.4
        portable, upright = pair("inside", index)
        assert np.abs(lung(portable) - lung(upright)).mean() > 0.015
    rng = np.random.default_rng(0)
    for shows in (True, False):
        frame = border(SITE["A"], portable.plan, (256, 256), 1.68, rng, portable=shows)
        assert ("PORTABLE" in frame.text, "P" in frame.letter) == (shows, shows)


def test_a_simulated_folder_is_a_manifest(tmp_path: Path) -> None:
    cfg = {"kind": "chest", "n": 6, "seed": 2, "reduction": 6, "workers": 1}
    simulate(cfg, tmp_path / "one")
    simulate(cfg, tmp_path / "two")
    paths = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert all((tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes() for path in paths)
    found = load_manifest(tmp_path / "one/images.parquet", tmp_path / "one/targets.parquet")
    table = truth_table(found, ("whole",))
    drawn = table[[f"label_{name}" for name in FINDINGS]]
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    assert (drawn.sum(axis=1) == table["boxes"].map(len)).all()
    images = found.images
    for column in ("patient", "site", "department", "scanner", "view", "portable", "date", "age", "sex"):
        assert (images[column].astype(str) != "").all()
    for image, site in zip(images["image"], images["site"], strict=True):
        read = read_film(found.path(image))
        assert read.metadata["body_part"] == "CHEST"
        assert read.metadata["view"] == images.set_index("image").loc[image, "view"]
        assert read.orientation == ("L", "F")
        assert read.spacing is not None
        assert site in read.metadata["station"]
    assert contact_sheet(tmp_path / "one", tmp_path / "sheet.png").stat().st_size > 50_000
    assert pd.read_csv(tmp_path / "one/targets.csv")["heart_ratio"].between(0.25, 0.75).all()
