"""Who comes to which hospital with what: the plan of every film, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from hashlib import sha256

import numpy as np

from domainseg.files import DomainsegError
from domainseg.phantom import fracture
from domainseg.phantom.implants import IMPLANTS, REPLACEMENTS
from domainseg.phantom.settings import RELATIVE_RISK, Settings

PARTS_OTHER = ("chest", "knee", "hand", "shoulder", "spine", "skull")


@dataclass(frozen=True)
class HipPlan:
    """What is wrong with one hip: fracture class ("" is none), place, implant ("" is none)."""

    fracture: str = ""
    place: str = ""
    implant: str = ""


@dataclass(frozen=True)
class FilmPlan:
    """Everything about a film that is decided before it is drawn. ``hips`` is by patient side, "R" and "L"."""

    index: int
    image: str
    patient: str
    patient_number: int
    study: str
    series: str
    site: str
    department: str
    portable: bool
    view: str
    part: str
    side: str
    date: str
    age: int
    sex: str
    turns: int
    hips: Mapping[str, HipPlan]


def plan(settings: Settings, index: int) -> FilmPlan:
    """The plan of one film; films of one patient stand together, and the plan of a film does not depend on n."""
    if index < 0:
        raise DomainsegError(f"the index of a film must be 0 or more, got {index}")
    number, first, count = _patient_of(settings.seed, index)
    return _films(settings, number, first, count)[index - first]


def _count(seed: int, number: int) -> int:
    return int(np.random.default_rng([seed, number, 101]).choice([1, 2, 3], p=[0.62, 0.28, 0.10]))


@lru_cache(maxsize=4)
def _starts(seed: int, films: int) -> tuple[int, ...]:
    starts = [0]
    while starts[-1] < films:
        starts.append(starts[-1] + _count(seed, len(starts) - 1))
    return tuple(starts)


def _patient_of(seed: int, index: int) -> tuple[int, int, int]:
    starts = _starts(seed, (index // 1024 + 1) * 1024)
    number = int(np.searchsorted(starts, index, side="right")) - 1
    return number, starts[number], starts[number + 1] - starts[number]


def _pick(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    names = list(shares)
    weights = np.array([shares[name] for name in names], float)
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def prevalence(settings: Settings, exposed: bool) -> float:
    """Probability of a fracture for patients of the exposed site (or portable films) and the others.

    The ratio of both is the relative risk; the mean over patients is ``settings.fracture`` as long as the exposed
    group stays at or below 0.95.
    """
    risk = RELATIVE_RISK[settings.confounder]
    if settings.confounder_by == "site":
        share = settings.sites.get("A", 0.0) / sum(settings.sites.values())
    else:
        share = settings.departments.get("inpatient", 0.0) / sum(settings.departments.values())
    high = min(0.95, settings.fracture * risk / (share * risk + 1 - share)) if risk > 1 else settings.fracture
    return high if exposed else high / risk


def _films(settings: Settings, number: int, first: int, count: int) -> tuple[FilmPlan, ...]:
    rng = np.random.default_rng([settings.seed, number, 102])
    site = _pick(rng, settings.sites)
    department = _pick(rng, settings.departments)
    portable = department == "inpatient"
    exposed = site == "A" if settings.confounder_by == "site" else portable
    broken = bool(rng.random() < prevalence(settings, exposed))
    sex = "F" if rng.random() < (0.68 if broken else 0.55) else "M"
    age = int(np.clip(rng.normal(80, 9) if broken else rng.normal(71, 14), 21, 99))
    hips = {"R": HipPlan(), "L": HipPlan()}
    side = str(rng.choice(["R", "L"]))
    if broken:
        inside = rng.random() < settings.intracapsular
        place = fracture.SITES[int(rng.choice([0, 1]) if inside else rng.choice([2, 3], p=[0.78, 0.22]))]
        hips[side] = HipPlan(_pick(rng, settings.classes), place)
    for name in ("R", "L"):
        if rng.random() < settings.implant:
            kind = IMPLANTS[int(rng.choice(5, p=[0.34, 0.22, 0.18, 0.14, 0.12]))]
            if kind in REPLACEMENTS:
                if not hips[name].fracture:
                    hips[name] = HipPlan(implant=kind)
            elif hips[name].fracture or rng.random() < 0.5:
                # Fixed and not yet healed: metal and a visible line go together, as in life.
                place = "transcervical" if kind == "screws" else "intertrochanteric"
                hips[name] = HipPlan("undisplaced", place, kind)
            else:
                hips[name] = HipPlan(implant=kind)
    day = date(2015, 1, 5) + timedelta(days=int(rng.integers(0, 1800)))
    token = sha256(f"{settings.seed}/{number}".encode()).hexdigest()
    films = []
    for offset in range(count):
        view = _pick(rng, settings.views)
        shown = side if broken and rng.random() < 0.85 else str(rng.choice(["R", "L"]))
        turns = int(rng.choice([1, 2, 3], p=[0.4, 0.2, 0.4])) if rng.random() < settings.turned else 0
        part = str(rng.choice(PARTS_OTHER)) if view == "other" else "hip"
        index = first + offset
        films.append(
            FilmPlan(
                index=index,
                image=f"film{index:06d}",
                patient=f"PH{token[:8].upper()}",
                patient_number=number,
                study=f"ST{token[8:16].upper()}",
                series=f"SE{token[16:22].upper()}{offset}",
                site=site,
                department=department,
                portable=portable,
                view=view,
                part=part,
                side=shown,
                date=day.isoformat(),
                age=age,
                sex=sex,
                turns=turns,
                hips=hips,
            )
        )
    return tuple(films)
