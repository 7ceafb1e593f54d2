"""What a simulated data set of chest films is made of: numbers that a user may set, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from domainseg.files import DomainsegError
from domainseg.imaging.chest import FINDINGS
from domainseg.phantom.settings import RELATIVE_RISK

SITES = ("A", "B", "C")
DEPARTMENTS = ("emergency", "inpatient", "outpatient")


@dataclass(frozen=True)
class ChestSettings:
    """Settings of the chest phantom; a film is a function of (seed, index, settings) alone.

    prevalence: share of patients with each finding; those that are left out keep their default. sites and departments
    are shares and are normalised. ``confounder`` is how strongly ``confounder_by`` (site A, or a portable film) goes
    with ``confounder_target``: relative risk 1, 5 or 10. ``confounder_place`` says whether what gives site and
    portable films away lies outside the lungs (marker, border, text, film size), inside (grey scale, sharpness, noise;
    AP geometry, leads and tubes), or both. ``report_sensitivity`` and ``report_specificity`` say how often a label
    agrees with a finding that is drawn, and one that is not. ``reduction`` makes pixels this many times larger.
    """

    seed: int = 0
    prevalence: Mapping[str, float] = field(default_factory=dict)
    sites: Mapping[str, float] = field(default_factory=lambda: {"A": 0.4, "B": 0.35, "C": 0.25})
    departments: Mapping[str, float] = field(
        default_factory=lambda: {"emergency": 0.35, "inpatient": 0.3, "outpatient": 0.35}
    )
    severity: float = 1.0
    confounder: str = "none"
    confounder_by: str = "site"
    confounder_target: str = "pneumonia"
    confounder_place: str = "both"
    report_sensitivity: float = 1.0
    report_specificity: float = 1.0
    reduction: float = 1

    def __post_init__(self) -> None:
        if wrong := sorted(set(self.prevalence) - set(FINDINGS)):
            raise DomainsegError(f"phantom.prevalence: {wrong[0]!r} is none of {', '.join(FINDINGS)}")
        object.__setattr__(self, "prevalence", {**PREVALENCE, **self.prevalence})
        for name, known in (("sites", SITES), ("departments", DEPARTMENTS)):
            shares = getattr(self, name)
            wrong = sorted(set(shares) - set(known))
            if wrong or any(value < 0 for value in shares.values()) or sum(shares.values()) <= 0:
                raise DomainsegError(
                    f"phantom.{name}: shares >= 0 of {', '.join(known)} are needed, got {dict(shares)}"
                )
        probabilities = {f"prevalence.{name}": value for name, value in self.prevalence.items()}
        probabilities |= {name: getattr(self, name) for name in ("report_sensitivity", "report_specificity")}
        for name, value in probabilities.items():
            if not 0 <= value <= 1:
                raise DomainsegError(f"phantom.{name} must lie in 0..1, got {value}")
        for name, allowed in (
            ("confounder", tuple(RELATIVE_RISK)),
            ("confounder_by", ("site", "portable")),
            ("confounder_target", tuple(FINDINGS)),
            ("confounder_place", ("outside", "inside", "both")),
        ):
            if getattr(self, name) not in allowed:
                raise DomainsegError(f"phantom.{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if not 0.2 <= self.severity <= 2:
            raise DomainsegError(f"phantom.severity must lie in 0.2..2, got {self.severity}")
        if not 1 <= self.reduction <= 8:
            raise DomainsegError(f"phantom.reduction must lie in 1..8, got {self.reduction}")

    @staticmethod
    def of(cfg: Mapping[str, Any]) -> ChestSettings:
        """Settings from a configuration; keys that are not settings are refused by name."""
        known = {item.name for item in fields(ChestSettings)}
        wrong = sorted(set(cfg) - known)
        if wrong:
            raise DomainsegError(f"phantom: unknown setting {wrong[0]!r}; known are {', '.join(sorted(known))}")
        return ChestSettings(**cfg)

    def plain(self) -> dict[str, Any]:
        """The settings as JSON types."""
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in asdict(self).items()}


#: Share of patients with a finding, above that of a hospital so that few films teach and measure enough.
PREVALENCE: Mapping[str, float] = {
    "atelectasis": 0.10,
    "cardiomegaly": 0.12,
    "effusion": 0.14,
    "infiltration": 0.10,
    "mass": 0.07,
    "nodule": 0.08,
    "pneumonia": 0.12,
    "pneumothorax": 0.08,
    "consolidation": 0.08,
    "edema": 0.08,
    "emphysema": 0.07,
    "fibrosis": 0.06,
    "pleural_thickening": 0.06,
    "hernia": 0.05,
}
