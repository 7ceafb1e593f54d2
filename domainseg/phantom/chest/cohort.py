"""Who comes to which hospital with what: the plan of every chest film, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from hashlib import sha256

import numpy as np

from domainseg.files import DomainsegError
from domainseg.imaging.chest import FINDINGS
from domainseg.phantom.chest.settings import ChestSettings
from domainseg.phantom.settings import RELATIVE_RISK


@dataclass(frozen=True)
class ChestPlan:
    """Everything about a film that is decided before it is drawn. findings: those of the patient, in the order of
    FINDINGS, with a severity 0..1 on this film."""

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
    date: str
    age: int
    sex: str
    findings: Mapping[str, float]


def plan(settings: ChestSettings, index: int) -> ChestPlan:
    """The plan of one film; films of one patient stand together, and the plan of a film does not depend on n."""
    if index < 0:
        raise DomainsegError(f"the index of a film must be 0 or more, got {index}")
    starts = _starts(settings.seed, (index // 1024 + 1) * 1024)
    number = int(np.searchsorted(starts, index, side="right")) - 1
    return _film(settings, number, index, index - starts[number])


def prevalence(settings: ChestSettings, finding: str, exposed: bool) -> float:
    """Probability of a finding for patients of the exposed site (or portable films) and the others.

    Of the confounder's target the ratio of both is the relative risk, and the mean over patients is the setting as
    long as the exposed group stays at or below 0.95. All other findings are as frequent everywhere.
    """
    risk, share = RELATIVE_RISK[settings.confounder], settings.prevalence[finding]
    if finding != settings.confounder_target or risk == 1:
        return share
    of, name = (settings.sites, "A") if settings.confounder_by == "site" else (settings.departments, "inpatient")
    group = of.get(name, 0.0) / sum(of.values())
    high = min(0.95, share * risk / (group * risk + 1 - group))
    return high if exposed else high / risk


@lru_cache(maxsize=4)
def _starts(seed: int, films: int) -> tuple[int, ...]:
    """First film of each patient, of the patients that ``films`` films need."""
    starts = [0]
    while starts[-1] < films:
        count = np.random.default_rng([seed, len(starts) - 1, 501]).choice([1, 2, 3], p=[0.70, 0.20, 0.10])
        starts.append(starts[-1] + int(count))
    return tuple(starts)


def _film(settings: ChestSettings, number: int, index: int, offset: int) -> ChestPlan:
    rng = np.random.default_rng([settings.seed, number, 502])
    site, department = _pick(rng, settings.sites), _pick(rng, settings.departments)
    portable = department == "inpatient"
    exposed = site == "A" if settings.confounder_by == "site" else portable
    chance = rng.random(len(FINDINGS))
    found = [name for name, draw in zip(FINDINGS, chance, strict=True) if draw < prevalence(settings, name, exposed)]
    sex = "F" if rng.random() < 0.46 else "M"
    age = int(np.clip(rng.normal(54, 18), 18, 95))
    day = date(2016, 1, 4) + timedelta(days=int(rng.integers(0, 1500)) + 3 * offset)
    token = sha256(f"chest/{settings.seed}/{number}".encode()).hexdigest()
    own = np.random.default_rng([settings.seed, index, 503])
    grades = own.beta(2.0, 1.6, len(FINDINGS))
    severity = dict(zip(FINDINGS, grades.tolist(), strict=True))
    return ChestPlan(
        index=index,
        image=f"chest{index:06d}",
        patient=f"PH{token[:8].upper()}",
        patient_number=number,
        study=f"ST{token[8:14].upper()}{offset}",
        series=f"SE{token[16:22].upper()}{offset}",
        site=site,
        department=department,
        portable=portable,
        view="AP" if portable or own.random() < 0.05 else "PA",
        date=day.isoformat(),
        age=age,
        sex=sex,
        findings={name: severity[name] for name in found},
    )


def _pick(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    names = list(shares)
    weights = np.array([shares[name] for name in names], float)
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]
