"""What a simulated data set is made of: numbers that a user may set, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from domainseg.files import DomainsegError

VIEWS = ("pelvis_ap", "hip_ap", "hip_lateral", "frog_leg", "other")
SITES = ("A", "B", "C")
DEPARTMENTS = ("emergency", "inpatient", "outpatient")
CLASSES = ("hairline", "undisplaced", "displaced")
RELATIVE_RISK = {"none": 1.0, "mild": 5.0, "severe": 10.0}


@dataclass(frozen=True)
class Settings:
    """Settings of the pelvis phantom; a film is a function of (seed, index, settings) alone.

    views, classes, sites and departments are shares and are normalised. ``confounder`` is how strongly
    ``confounder_by`` (site A, or a portable film) goes with fracture: relative risk 1, 5 or 10. ``confounder_place``
    says whether what gives site and portable films away lies outside the hip's region of interest (marker, border,
    text, where they do not reach into it), inside it (grey scale, sharpness, noise), or both.
    ``fracture_contrast`` scales how much bone is missing in a fracture line.
    ``reduction`` makes pixels this many times larger, for quick looks and tests.
    """

    seed: int = 0
    views: Mapping[str, float] = field(
        default_factory=lambda: {
            "pelvis_ap": 0.68,
            "hip_ap": 0.10,
            "hip_lateral": 0.06,
            "frog_leg": 0.04,
            "other": 0.12,
        }
    )
    sites: Mapping[str, float] = field(default_factory=lambda: {"A": 0.4, "B": 0.35, "C": 0.25})
    departments: Mapping[str, float] = field(
        default_factory=lambda: {"emergency": 0.6, "inpatient": 0.2, "outpatient": 0.2}
    )
    fracture: float = 0.40
    classes: Mapping[str, float] = field(
        default_factory=lambda: {"hairline": 0.25, "undisplaced": 0.30, "displaced": 0.45}
    )
    intracapsular: float = 0.5
    implant: float = 0.10
    turned: float = 0.04
    mimics: float = 0.5
    fracture_contrast: float = 1.0
    confounder: str = "none"
    confounder_by: str = "site"
    confounder_place: str = "both"
    reduction: int = 1

    def __post_init__(self) -> None:
        for name, known in (
            ("views", VIEWS),
            ("sites", SITES),
            ("departments", DEPARTMENTS),
            ("classes", CLASSES),
        ):
            shares = getattr(self, name)
            wrong = sorted(set(shares) - set(known))
            if wrong or any(value < 0 for value in shares.values()) or sum(shares.values()) <= 0:
                raise DomainsegError(
                    f"phantom.{name}: shares >= 0 of {', '.join(known)} are needed, got {dict(shares)}"
                )
        for name in ("fracture", "intracapsular", "implant", "turned", "mimics"):
            if not 0 <= getattr(self, name) <= 1:
                raise DomainsegError(f"phantom.{name} must lie in 0..1, got {getattr(self, name)}")
        for name, allowed in (
            ("confounder", tuple(RELATIVE_RISK)),
            ("confounder_by", ("site", "portable")),
            ("confounder_place", ("outside", "inside", "both")),
        ):
            if getattr(self, name) not in allowed:
                raise DomainsegError(f"phantom.{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.reduction < 1:
            raise DomainsegError(f"phantom.reduction must be 1 or more, got {self.reduction}")

    @staticmethod
    def of(cfg: Mapping[str, Any]) -> Settings:
        """Settings from a configuration; keys that are not settings are refused by name."""
        known = {item.name for item in fields(Settings)}
        wrong = sorted(set(cfg) - known)
        if wrong:
            raise DomainsegError(f"phantom: unknown setting {wrong[0]!r}; known are {', '.join(sorted(known))}")
        return Settings(**cfg)

    def plain(self) -> dict[str, Any]:
        """The settings as JSON types."""
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in asdict(self).items()}
