"""Simulated hip and pelvis films with known truth: ``python -m domainseg.phantom pelvis n=500 output=DIR``."""

from __future__ import annotations

from domainseg.phantom.film import HipTruth, SimulatedFilm, film
from domainseg.phantom.settings import Settings
from domainseg.phantom.sheet import contact_sheet
from domainseg.phantom.simulate import VERSION, simulate

__all__ = ["VERSION", "HipTruth", "Settings", "SimulatedFilm", "contact_sheet", "film", "simulate"]
