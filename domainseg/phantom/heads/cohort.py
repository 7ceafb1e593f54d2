"""Who comes to which hospital with what: the plan of every exam, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256

import numpy as np

from domainseg.files import DomainsegError
from domainseg.phantom.heads.settings import HeadSettings

OTHERS = ("trunk", "legs", "neck")
MONTHS = 18  # of the dates
# What comes with what: chance that a second bleed is of the type, given the first (our choice).
_TOGETHER: Mapping[str, Mapping[str, float]] = {
    "intraparenchymal": {"intraventricular": 0.5, "subarachnoid": 0.2, "intraparenchymal": 0.2, "subdural": 0.1},
    "subdural": {"subarachnoid": 0.5, "intraparenchymal": 0.25, "subdural": 0.2, "epidural": 0.05},
    "epidural": {"subdural": 0.35, "intraparenchymal": 0.35, "subarachnoid": 0.3},
    "subarachnoid": {"intraventricular": 0.4, "subarachnoid": 0.3, "intraparenchymal": 0.15, "subdural": 0.15},
    "intraventricular": {"intraparenchymal": 0.6, "subarachnoid": 0.4},
}


@dataclass(frozen=True)
class ExamPlan:
    """Everything about an exam that is decided before it is drawn.

    other: "" for a head, else what else was scanned. bleeds: types in the order in which they are drawn. distance:
    mm between slices along the normal. tilt: of the gantry, degrees.
    """

    index: int
    image: str
    patient: str
    study: str
    series: str
    site: str
    department: str
    date: str
    age: int
    sex: str
    other: str
    bleeds: tuple[str, ...]
    density: str
    distance: float
    tilt: float


def plan(settings: HeadSettings, index: int) -> ExamPlan:
    """The plan of one exam; every exam is of another patient and does not depend on how many there are."""
    if index < 0:
        raise DomainsegError(f"the index of an exam must be 0 or more, got {index}")
    rng = np.random.default_rng([settings.seed, index, 401])
    site, department = pick(rng, settings.sites), pick(rng, settings.departments)
    other = str(rng.choice(OTHERS)) if rng.random() < settings.other else ""
    bleeding = bool(rng.random() < settings.bleed) and not other
    bleeds: list[str] = []
    if bleeding:
        bleeds.append(pick(rng, settings.types))
        while len(bleeds) < 4 and rng.random() < settings.several * 0.8 ** (len(bleeds) - 1):
            bleeds.append(_second(rng, bleeds[0], settings.types))
    young = 0.12 if not bleeding else 0.08
    age = int(rng.integers(1, 18)) if rng.random() < young else int(np.clip(rng.normal(60, 19), 18, 97))
    sex = "F" if rng.random() < 0.48 else "M"
    density = ("subacute" if rng.random() < settings.subacute else "fresh") if bleeding else ""
    day = date(2021, 1, 4) + timedelta(days=int(rng.integers(0, MONTHS * 365 // 12)))
    distance = {"A": 5.0, "B": 4.8, "C": 5.0}[site]
    if site == "C" and rng.random() < settings.thin:
        distance = 1.25 if rng.random() < 0.2 else 2.5
    tilt = round(float(rng.uniform(10, 20)), 1) if site == "B" else 0.0
    token = sha256(f"head/{settings.seed}/{index}".encode()).hexdigest()
    return ExamPlan(
        index=index,
        image=f"exam{index:06d}",
        patient=f"PH{token[:8].upper()}",
        study=f"ST{token[8:16].upper()}",
        series=f"SE{token[16:23].upper()}",
        site=site,
        department=department,
        date=day.isoformat(),
        age=age,
        sex=sex,
        other=other,
        bleeds=tuple(bleeds),
        density=density,
        distance=distance * settings.reduction**0.5,
        tilt=0.0 if other else tilt,
    )


def pick(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    """One name by its share."""
    names = list(shares)
    weights = np.array([shares[name] for name in names], float)
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _second(rng: np.random.Generator, first: str, types: Mapping[str, float]) -> str:
    """A further type beside the first; types whose share is 0 never come."""
    allowed = {name: share for name, share in _TOGETHER[first].items() if types.get(name, 0) > 0}
    return pick(rng, allowed) if allowed else first
