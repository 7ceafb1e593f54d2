from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from domainseg.files import DomainsegError
from domainseg.imaging.chest import FINDINGS
from domainseg.phantom.chest.cohort import ChestPlan, plan
from domainseg.phantom.chest.files import labels
from domainseg.phantom.chest.settings import PREVALENCE, ChestSettings

N = 1500


def patients(settings: ChestSettings) -> list[ChestPlan]:
    """The first film of each patient."""
    found: dict[str, ChestPlan] = {}
    for index in range(N):
        film = plan(settings, index)
        found.setdefault(film.patient, film)
    return list(found.values())


def share(films: list[ChestPlan], finding: str) -> float:
    return float(np.mean([finding in film.findings for film in films]))


def test_default_shares_are_those_of_the_settings() -> None:
    people = patients(ChestSettings(seed=3))
    for finding, expected in PREVALENCE.items():
        assert share(people, finding) == pytest.approx(expected, abs=0.035), finding
    assert np.mean([film.site == "A" for film in people]) == pytest.approx(0.40, abs=0.04)
    assert np.mean([film.portable for film in people]) == pytest.approx(0.30, abs=0.04)
    assert all(film.view == "AP" for film in people if film.portable)
    assert np.mean([film.view == "AP" for film in people if not film.portable]) == pytest.approx(0.05, abs=0.02)
    several = [len(film.findings) for film in people]
    assert np.mean(np.equal(several, 0)) == pytest.approx(
        np.prod([1 - value for value in PREVALENCE.values()]), abs=0.03
    )
    assert max(several) >= 4


def test_films_of_a_patient_agree_and_a_plan_does_not_depend_on_others() -> None:
    settings = ChestSettings(seed=1)
    films = [plan(settings, index) for index in range(200)]
    assert [plan(settings, index) for index in (150, 3, 77)] == [films[150], films[3], films[77]]
    by_patient: dict[str, list[ChestPlan]] = {}
    for film in films:
        by_patient.setdefault(film.patient, []).append(film)
    assert max(map(len, by_patient.values())) == 3
    for several in by_patient.values():
        assert len({(film.site, film.sex, film.age, tuple(film.findings)) for film in several}) == 1
        assert len({film.study for film in several}) == len(several)


@pytest.mark.parametrize(
    ("confounder", "risk", "by"), [("none", 1, "site"), ("mild", 5, "portable"), ("severe", 10, "site")]
)
def test_the_confounder_goes_with_its_target_only(confounder: str, risk: float, by: str) -> None:
    settings = ChestSettings(
        seed=5, confounder=confounder, confounder_by=by, confounder_target="mass", prevalence={"mass": 0.2}
    )
    people = patients(settings)
    exposed = [film for film in people if (film.site == "A" if by == "site" else film.portable)]
    others = [film for film in people if film not in exposed]
    assert share(people, "mass") == pytest.approx(0.2, abs=0.03)
    group = 0.4 if by == "site" else 0.3
    expected = 0.2 * risk / (group * risk + 1 - group)
    assert share(exposed, "mass") == pytest.approx(expected, abs=0.05)
    assert share(others, "mass") == pytest.approx(expected / risk, abs=0.03)
    for finding in ("effusion", "pneumonia"):
        assert share(exposed, finding) == pytest.approx(share(others, finding), abs=0.06)


def test_reports_err_as_often_as_they_are_set_to() -> None:
    settings = ChestSettings(seed=2, report_sensitivity=0.8, report_specificity=0.95)
    plans = [plan(settings, index) for index in range(N)]
    rows = [labels(settings, film) for film in plans]
    there = np.array([[name in film.findings for name in FINDINGS] for film in plans])
    said = np.array([[row[f"label_{name}"] for name in FINDINGS] for row in rows]) == 1
    assert said[there].mean() == pytest.approx(0.8, abs=0.03)
    assert said[~there].mean() == pytest.approx(0.05, abs=0.008)
    exact = replace(settings, report_sensitivity=1.0, report_specificity=1.0)
    assert all(
        labels(exact, film)[f"label_{name}"] == (name in film.findings) for film in plans[:50] for name in FINDINGS
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prevalence": {"cough": 0.1}}, "cough"),
        ({"prevalence": {"mass": 1.2}}, "0..1"),
        ({"sites": {"D": 1.0}}, "A, B, C"),
        ({"confounder_target": "fracture"}, "atelectasis"),
        ({"reduction": 0.5}, "1..8"),
        ({"n_films": 3}, "n_films"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(DomainsegError, match=words):
        ChestSettings.of(wrong)
