"""The caveats' demonstration: relations and measures against closed forms and sklearn, frames, one small run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from domainseg.cascade.case import Case
from domainseg.cascade.operations import fit_frame
from domainseg.imaging.film import Film
from domainseg.imaging.geometry import inverse, step, transform
from domainseg.phantom.cohort import plan
from domainseg.phantom.settings import Settings
from domainseg.probes.caveats_films import relations
from domainseg.probes.caveats_measures import falls, measure, on_intention, row_weights, site_alone
from domainseg.probes.caveats_models import Model, enlarged
from domainseg.probes.caveats_page import findings, main_table, page_of

SEVERE = Settings(confounder="severe", views={"pelvis_ap": 1.0}, implant=0.0, fracture=0.5)


def at_every_site(n: int = 60, seed: int = 0, **scores: Any) -> pd.DataFrame:
    """n patients at three sites, half of them fractured; score(label, site, random of the patient) gives the score."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(n):
        random = rng.random()
        for site in "ABC":
            row = {"image": f"f{k}", "site": site, "group": f"p{k}", "patient": f"p{k}", "label_fracture": k % 2}
            rows.append({**row, "score_fracture": scores["score"](k % 2, site, random)})
    return pd.DataFrame(rows)


def test_relations_are_those_of_the_simulated_cohort() -> None:
    films = [plan(SEVERE, index) for index in range(2500)]
    broken = np.array([any(hip.fracture for hip in film.hips.values()) for film in films])
    site = np.array([film.site for film in films])
    related = relations(SEVERE)
    for name in "ABC":
        for label in (0, 1):
            assert (site[broken == label] == name).mean() == pytest.approx(related["inside"][name][label], abs=0.04)
            assert related["reversed"][name][label] == related["inside"][name][1 - label]
        assert related["absent"][name][0] == related["absent"][name][1] == pytest.approx(SEVERE.sites[name])
    for relation in related.values():
        assert np.sum(list(relation.values()), axis=0) == pytest.approx([1, 1])


def test_the_same_index_is_the_same_patient_at_every_site() -> None:
    plans = [
        [plan(Settings(sites={site: 1.0}, confounder_place=place), index) for site in "ABC"]
        for index in range(20)
        for place in ("outside", "both")
    ]
    for at_sites in plans:
        assert [film.site for film in at_sites] == ["A", "B", "C"]
        assert len({(film.patient, film.view, film.age, film.sex, str(film.hips)) for film in at_sites}) == 1


def test_a_score_that_is_the_site_has_the_auc_of_the_site_alone() -> None:
    related = relations(SEVERE)
    table = at_every_site(score=lambda label, site, random: 0.9 if site == "A" else 0.1)
    found, alone = measure(table, related, resamples=100, seed=0), site_alone(related)
    for test in related:
        assert found["auc"][test]["value"] == pytest.approx(alone[test], abs=1e-9)
    # Of fractured patients the share a comes from A, of the others b: a (1 - b) + (a b + (1 - a)(1 - b)) / 2.
    a, b = related["inside"]["A"][1], related["inside"]["A"][0]
    assert alone["inside"] == pytest.approx(0.5 + (a - b) / 2)
    assert (alone["absent"], alone["inside"] + alone["reversed"]) == pytest.approx((0.5, 1.0))
    assert found["within"]["A"]["value"] == found["within"]["B"]["value"] == 0.5
    assert found["higher_as_a"]["B"]["value"] == found["higher_as_a"]["C"]["value"] == 1.0
    assert 0.9 < found["higher_as_a"]["B"]["low"] < 1.0
    assert found["fall"]["value"] == pytest.approx(alone["reversed"] - alone["inside"])


def test_a_score_that_is_the_bone_keeps_its_auc_and_has_honest_bounds() -> None:
    table = at_every_site(score=lambda label, site, random: 0.2 + 0.6 * label)
    found = measure(table, relations(SEVERE), resamples=100, seed=0)
    for metric in found["auc"].values():
        assert (metric["value"], metric["high"]) == pytest.approx((1.0, 1.0), abs=1e-12)
        assert "exact bound" in metric["method"]
        assert metric["low"] == pytest.approx(0.025 ** (1 / 30))  # Clopper-Pearson of 30 out of 30
    assert found["fall"]["value"] == pytest.approx(0, abs=1e-12)
    assert found["fall"]["low"] == pytest.approx(-(1 - 0.025 ** (1 / 30)))
    assert found["higher_as_a"]["B"]["value"] == 0.5
    assert found["shift"]["B"]["value"] == 0


def test_auc_of_each_test_is_sklearns_with_the_same_weights() -> None:
    def noisy(label: int, site: str, random: float) -> float:
        return 0.2 * label + 0.3 * (site == "A") + 0.4 * random

    table, related = at_every_site(score=noisy), relations(SEVERE)
    found = measure(table, related, resamples=200, seed=0)
    label, score = table["label_fracture"].to_numpy(float), table["score_fracture"].to_numpy()
    aucs = {}
    for test, relation in related.items():
        weights = row_weights(label, table["site"].to_numpy(), relation)
        aucs[test] = roc_auc_score(label, score, sample_weight=weights)
        assert found["auc"][test]["value"] == pytest.approx(aucs[test])
        assert found["auc"][test]["low"] < aucs[test] < found["auc"][test]["high"]
    assert found["fall"]["value"] == pytest.approx(aucs["reversed"] - aucs["inside"])
    assert found["fall"]["high"] < 0


def test_films_that_a_filter_lost_count_against_the_model() -> None:
    table = at_every_site(score=lambda label, site, random: 0.2 + 0.6 * label)
    table.loc[table["image"] == "f1", "score_fracture"] = np.nan  # fractured
    table.loc[table["image"] == "f2", "score_fracture"] = np.nan  # intact
    found = measure(table, relations(SEVERE), resamples=100, seed=0)
    assert found["lost"] == 6
    # 29 of 30 fractured films stand above 29 of 30 intact ones, at every site.
    assert found["auc"]["absent"]["value"] == pytest.approx((29 / 30) ** 2)
    assert set(on_intention(table)[np.isinf(on_intention(table))]) == {-np.inf, np.inf}


def test_difference_of_two_models_is_paired() -> None:
    table, related = at_every_site(score=lambda label, site, random: 0.3 * label + random / 2), relations(SEVERE)
    label, score = table["label_fracture"].to_numpy(float), table["score_fracture"].to_numpy()
    weights = row_weights(label, table["site"].to_numpy(), related["absent"])
    same = falls(label, (score, weights), (2 * score, weights), table["group"].to_numpy(), 100, 0)
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)


@pytest.mark.parametrize(("pixels", "side"), [(224, 256), (1024, 1024)])
def test_a_frame_of_224_stands_in_the_middle_of_256(pixels: int, side: int) -> None:
    model = Model("", "whole", pixels, [])
    film = Film(pixels=np.zeros((600, 900), np.float32))
    affine, shape = fit_frame(enlarged(Case.of("f", film), model), model.side)
    assert shape == (side, side)
    assert step(affine) == pytest.approx(900 / pixels, rel=2e-3)
    corners = transform(inverse(affine), [[-0.5, 299.5], [899.5, 299.5]])
    assert corners[:, 0] == pytest.approx([(side - pixels) / 2 - 0.5, (side + pixels) / 2 - 0.5], abs=0.3)
    assert transform(inverse(affine), [449.5, 299.5]) == pytest.approx([(side - 1) / 2] * 2, abs=0.3)


def cells() -> list[dict[str, Any]]:
    """Cells of two models, as a run would write them."""
    found = []
    for name, score in (
        ("whole_224", lambda label, site, random: 0.2 * label + 0.5 * (site == "A") + 0.2 * random),
        ("cascade", lambda label, site, random: 0.3 * label + 0.7 * random),
    ):
        table = at_every_site(score=score)
        found.append(
            {
                "place": "outside",
                "model": name,
                "title": name,
                "seed": 0,
                "films": 60,
                "fractured": 30,
                "patients": 60,
                "seconds": {"all": 2, "training": 1},
                "hardware": {"processor": "x", "threads": 1, "gpu": None},
                **measure(table, relations(SEVERE), resamples=100, seed=0),
            }
        )
    return found


def test_the_page_says_who_falls_and_who_does_not() -> None:
    record = {"cells": cells(), "pairs": [], "checks": None, "films": {"train": 9}, "seed": 0}
    record["site_alone"] = site_alone(relations(SEVERE))
    said = findings(record)
    assert "it falls" in said[0]
    assert "no fall of 0.05 or more" in said[1]
    few = {**record, "cells": [{**cell, "fractured": 5} for cell in record["cells"]]}
    assert all("too few films to say" in sentence for sentence in findings(few))
    page = page_of(record)
    assert page.sections[0].figures[0].content.startswith("<?xml")
    assert [row[1] for row in main_table(record).rows] == ["whole_224", "cascade", "Site alone, by design"]
    assert any("No use of the site was found" in text for text in page.sections[2].text)
