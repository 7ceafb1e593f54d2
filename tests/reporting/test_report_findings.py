"""Findings in the report and in pictures: the table beside printed figures, warnings, where a map is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from domainseg.cascade.case import Case
from domainseg.cascade.findings import CALLED
from domainseg.cascade.operations import fit_frame
from domainseg.evaluation import evaluate
from domainseg.evaluation.published import CHEST_AUC, CHEST_BASE_RATES
from domainseg.imaging import Film
from domainseg.imaging.chest import FINDINGS
from domainseg.imaging.geometry import inverse, transform
from domainseg.reporting import report
from domainseg.reporting.content import Content
from domainseg.reporting.overlays import draw_overlay, film_picture
from domainseg.reporting.overlays_findings import MOST, overlay, panels, under_map
from domainseg.reporting.sections_findings import HEADS, finding_rows


@pytest.fixture(scope="module")
def content() -> Content:
    """100 test films with three findings; of hernia nothing is known but that it is absent."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image": [f"f{k}" for k in range(100)], "patient": range(100), "split": "test"})
    for name in ("pneumonia", "mass", "hernia"):
        table[f"label_{name}"] = (rng.random(100) < 0.3).astype(float) if name != "hernia" else 0.0
        table[f"score_{name}"] = np.clip(0.3 * table[f"label_{name}"] + rng.random(100) * 0.7, 0, 1)
        table[f"threshold_{name}"] = 0.4
    chosen = {"value": 0.4, "rule": "sensitivity_0.95", "provisional": True, "n_positive": 7}
    numbers = {
        "target": "pneumonia",
        "findings": {"mass": chosen},
        "base_rates": {"mass": 0.21},
        "weights": "from scratch",
    }
    threshold = {"stage": "findings", **chosen, "numbers": numbers}
    return Content(name="chest", metrics=evaluate(table, resamples=20), table=table, thresholds=[threshold])


def test_findings_stand_beside_what_was_printed(content: Content) -> None:
    rows = {row[0]: dict(zip(HEADS, row, strict=True)) for row in finding_rows(content)}
    assert list(rows) == ["Mass", "Pneumonia", "Hernia", "Mean AUC of the findings"]
    assert rows["Pneumonia"]["CheXNet"] == "0.7680"
    assert (rows["Mass"]["Base rate"], rows["Mass"]["that of NIH"]) == ("0.210", "0.051")
    assert rows["Hernia"]["AUC"] == "–"
    assert rows["Mean AUC of the findings"]["Zech 2018"] == f"{(0.7651 + 0.8308) / 2:.4f}"  # of those with an AUC here
    assert set(CHEST_AUC) == set(CHEST_BASE_RATES) == set(FINDINGS)


def test_the_report_tells_of_findings(content: Content) -> None:
    html = report.render(content)
    for text in ("Findings", "Zech 2022", "from scratch", "thresholds of 1 of 1 further finding are provisional"):
        assert text in html
    assert "maps.html" not in html
    assert content.main == "pneumonia"
    assert html.count("Does this chest film show") == 1, "only the target has a block among the key figures"


def film_with(cells: np.ndarray) -> Case:
    film = Film(pixels=np.full((300, 200), 0.5, np.float32))
    case = Case.of("a", film).with_values(score_mass=0.7, score_edema=0.1)
    arrays = {"map_mass": cells, "map_edema": np.zeros((7, 7), np.float32), CALLED: np.array(["mass"])}
    return Case(case.image, film, case.affine, case.shape, values=case.values, arrays=arrays)


def test_a_cell_is_drawn_where_the_network_saw_it() -> None:
    """The film stands in the middle of the square that the network sees."""
    cells = np.zeros((7, 7), np.float32)
    cells[2, 4], cells[5, 2] = 3.0, -3.0
    case = film_with(cells)
    assert isinstance(case.film, Film)
    picture, affine = film_picture(case.film, 300)
    drawn = under_map(picture, affine, case, cells).astype(int)
    redness = drawn[..., 2] - drawn[..., 0]
    for (row, column), place in (((2, 4), redness.argmax()), ((5, 2), redness.argmin())):
        wanted = transform(inverse(affine) @ fit_frame(case, 7)[0], [column, row])
        y, x = np.unravel_index(place, redness.shape)
        assert np.hypot(x - wanted[0], y - wanted[1]) < 20, (row, column)  # half a cell
    assert (drawn[2:40, 2:40] == picture[2:40, 2:40]).all(), "where the map says nothing the film is untouched"


def test_predict_draws_what_was_called(tmp_path: Path) -> None:
    case = film_with(np.full((7, 7), 1.0, np.float32))
    assert isinstance(case.film, Film)
    one = panels(case.film, case, ["mass"], 150)
    assert one.shape == (150, 200, 3)
    assert overlay(case.film, case).shape[1] == 2 * film_picture(case.film, 512)[0].shape[1]
    nothing = Case(
        case.image,
        case.film,
        case.affine,
        case.shape,
        values=case.values,
        arrays={**case.arrays, CALLED: np.array([], str)},
    )
    assert overlay(case.film, nothing).shape == overlay(case.film, case).shape
    assert MOST >= 1
    draw_overlay(case.film, [case], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0
