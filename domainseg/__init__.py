"""domainseg: trained, checked and deliverable detectors for medical images.

Importing the package loads nothing: each part is imported by name, ``from domainseg.imaging import read_film``. What
a delivered detector needs is found here, and loaded when it is first asked for:

  domainseg.load_bundle("bundle").predict("film.dcm")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainseg.bundle.load import load_bundle
    from domainseg.imaging import read_film, read_volume

__all__ = ["load_bundle", "read_film", "read_volume"]
__version__ = "0.1.0"

_PLACES = {
    "load_bundle": "domainseg.bundle.load",
    "read_film": "domainseg.imaging",
    "read_volume": "domainseg.imaging",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'domainseg' has no attribute {name!r}")
