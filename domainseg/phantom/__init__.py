"""Simulated films and exams with known truth: ``python -m domainseg.phantom pelvis n=500 output=DIR``, head, chest."""

from __future__ import annotations

from domainseg.phantom.chest.settings import ChestSettings
from domainseg.phantom.film import HipTruth, SimulatedFilm, film
from domainseg.phantom.heads.settings import HeadSettings
from domainseg.phantom.settings import Settings
from domainseg.phantom.sheet import contact_sheet
from domainseg.phantom.simulate import VERSION, VERSIONS, simulate

__all__ = [
    "VERSION",
    "VERSIONS",
    "ChestSettings",
    "HeadSettings",
    "HipTruth",
    "Settings",
    "SimulatedFilm",
    "contact_sheet",
    "film",
    "simulate",
]
