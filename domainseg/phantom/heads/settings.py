"""What a simulated data set of head CT is made of: numbers that a user may set, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from domainseg.files import DomainsegError
from domainseg.imaging.hemorrhage import TYPES

SITES = ("A", "B", "C")
DEPARTMENTS = ("emergency", "inpatient", "outpatient")


@dataclass(frozen=True)
class HeadSettings:
    """Settings of the head phantom; an exam is a function of (seed, index, settings) alone.

    sites, departments and types are shares and are normalised. The others are shares of exams or bleeds, 0..1, but
    ``reduction``, which makes pixels this many times larger and slices its square root thicker. ``base`` names a folder
    of exams without bleeds to paint into, instead of simulated heads; of the other settings only seed, bleed, types,
    subacute and several then matter.
    """

    seed: int = 0
    sites: Mapping[str, float] = field(default_factory=lambda: {"A": 0.45, "B": 0.3, "C": 0.25})
    departments: Mapping[str, float] = field(
        default_factory=lambda: {"emergency": 0.6, "inpatient": 0.25, "outpatient": 0.15}
    )
    bleed: float = 0.5
    types: Mapping[str, float] = field(
        default_factory=lambda: {
            "intraparenchymal": 0.30,
            "subdural": 0.25,
            "epidural": 0.13,
            "subarachnoid": 0.17,
            "intraventricular": 0.15,
        }
    )
    subacute: float = 0.2
    several: float = 0.45
    mimics: float = 0.5
    thin: float = 0.35
    motion: float = 0.08
    metal: float = 0.05
    other: float = 0.06
    reduction: float = 1
    base: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("sites", SITES), ("departments", DEPARTMENTS), ("types", TYPES)):
            shares = getattr(self, name)
            wrong = sorted(set(shares) - set(known))
            if wrong or any(value < 0 for value in shares.values()) or sum(shares.values()) <= 0:
                raise DomainsegError(
                    f"phantom.{name}: shares >= 0 of {', '.join(known)} are needed, got {dict(shares)}"
                )
        for name in ("bleed", "subacute", "several", "mimics", "thin", "motion", "metal", "other"):
            if not 0 <= getattr(self, name) <= 1:
                raise DomainsegError(f"phantom.{name} must lie in 0..1, got {getattr(self, name)}")
        if not 1 <= self.reduction <= 3.5:  # coarser pixels are taken for slices that are not axial
            raise DomainsegError(f"phantom.reduction must lie in 1..3.5, got {self.reduction}")

    @staticmethod
    def of(cfg: Mapping[str, Any]) -> HeadSettings:
        """Settings from a configuration; keys that are not settings are refused by name."""
        known = {item.name for item in fields(HeadSettings)}
        wrong = sorted(set(cfg) - known)
        if wrong:
            raise DomainsegError(f"phantom: unknown setting {wrong[0]!r}; known are {', '.join(sorted(known))}")
        return HeadSettings(**cfg)

    def plain(self) -> dict[str, Any]:
        """The settings as JSON types."""
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in asdict(self).items()}
