"""Helper modules of these tests, importable by name."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def toy_bundle() -> ModuleType:
    """toy_bundle.py of this folder."""
    spec = spec_from_file_location("toy_bundle", Path(__file__).parent / "toy_bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["toy_bundle"] = module
    spec.loader.exec_module(module)
    return module
