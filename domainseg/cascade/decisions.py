"""The decisions that a bundle may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainseg.cascade.findings import Findings
from domainseg.cascade.head import HeadFilter, HemorrhageDetector
from domainseg.cascade.stages import FractureDetector, ImplantFilter, Localizer, ViewFilter, WholeFilm

# What a bundle may name: a closed list, never an import path.
DECISIONS: Mapping[str, Any] = {
    "view_filter": ViewFilter,
    "localizer": Localizer,
    "implant_filter": ImplantFilter,
    "fracture_detector": FractureDetector,
    "whole_film": WholeFilm,
    "head_filter": HeadFilter,
    "hemorrhage_detector": HemorrhageDetector,
    "findings": Findings,
}
