from __future__ import annotations

import numpy as np
import pytest

from domainseg.files import DomainsegError
from domainseg.phantom.cohort import FilmPlan, plan
from domainseg.phantom.settings import Settings

N = 2500


def patients(settings: Settings) -> list[FilmPlan]:
    """The first film of each patient."""
    found: dict[str, FilmPlan] = {}
    for index in range(N):
        film = plan(settings, index)
        found.setdefault(film.patient, film)
    return list(found.values())


def broken(film: FilmPlan) -> bool:
    return any(hip.fracture and not hip.implant for hip in film.hips.values())


def rate(films: list[FilmPlan]) -> float:
    return float(np.mean([broken(film) for film in films]))


def test_default_shares_are_those_of_the_settings() -> None:
    settings = Settings(seed=3)
    films = [plan(settings, index) for index in range(N)]
    views = {view: np.mean([film.view == view for film in films]) for view in settings.views}
    for view, share in settings.views.items():
        assert views[view] == pytest.approx(share, abs=0.04)
    assert np.mean([film.department == "emergency" for film in films]) == pytest.approx(0.6, abs=0.05)
    people = patients(settings)
    assert rate(people) == pytest.approx(0.40, abs=0.05)
    classes = [hip.fracture for film in people for hip in film.hips.values() if hip.fracture and not hip.implant]
    assert np.mean(np.array(classes) == "hairline") == pytest.approx(0.25, abs=0.06)
    assert np.mean(np.array(classes) == "displaced") == pytest.approx(0.45, abs=0.07)


def test_without_confounder_fracture_is_independent_of_site_and_department() -> None:
    people = patients(Settings(seed=1))
    for name, groups in (("site", "ABC"), ("department", ("emergency", "inpatient", "outpatient"))):
        for group in groups:
            chosen = [film for film in people if getattr(film, name) == group]
            error = np.sqrt(0.24 / len(chosen))
            assert abs(rate(chosen) - 0.40) < 3.5 * error


@pytest.mark.parametrize(("confounder", "risk"), [("mild", 5), ("severe", 10)])
@pytest.mark.parametrize("by", ["site", "portable"])
def test_the_confounder_gives_its_relative_risk(confounder: str, risk: float, by: str) -> None:
    people = patients(Settings(seed=2, confounder=confounder, confounder_by=by, implant=0.0))
    exposed = [film for film in people if (film.site == "A" if by == "site" else film.portable)]
    others = [film for film in people if film not in exposed]
    assert np.log(rate(exposed) / rate(others)) == pytest.approx(np.log(risk), abs=0.35)


def test_films_of_a_patient_share_the_patient_and_the_plan_does_not_depend_on_what_was_asked_before() -> None:
    settings = Settings(seed=5)
    late = plan(settings, 700)
    films = [plan(settings, index) for index in range(701)]
    assert films[700] == late
    counts = np.unique([film.patient for film in films[:600]], return_counts=True)[1]
    assert set(counts) == {1, 2, 3}
    by_patient: dict[str, FilmPlan] = {}
    for film in films:
        first = by_patient.setdefault(film.patient, film)
        assert (film.hips, film.site, film.age, film.sex) == (first.hips, first.site, first.age, first.sex)


def test_settings_are_refused_by_name() -> None:
    with pytest.raises(DomainsegError, match=r"phantom\.views"):
        Settings(views={"oblique": 1.0})
    with pytest.raises(DomainsegError, match=r"phantom\.fracture must"):
        Settings(fracture=1.5)
    with pytest.raises(DomainsegError, match="unknown setting 'confounders'"):
        Settings.of({"confounders": "mild"})
    with pytest.raises(DomainsegError, match="0 or more"):
        plan(Settings(), -1)
