"""What a PACS would export: tiny films in folders of patients and studies, and simulated ones with their truth."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def exported() -> ModuleType:
    """The helpers of export.py."""
    spec = importlib.util.spec_from_file_location("export", Path(__file__).with_name("export.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
