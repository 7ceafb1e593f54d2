"""What a PACS would export: tiny films in folders of patients and studies, and simulated ones with their truth."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from domainseg.data.pacs import build

Build = Callable[..., tuple[pd.DataFrame, dict[str, Any]]]


@pytest.fixture(scope="session")
def exported() -> ModuleType:
    """The helpers of export.py."""
    spec = importlib.util.spec_from_file_location("export", Path(__file__).with_name("export.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(tmp_path: Path, exported: ModuleType) -> Build:
    """Builds tmp_path/dicom into tmp_path/out; returns the images by file name and the summary."""

    def run(**changes: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
        out = tmp_path / "out"
        build(exported.settings(dicom=str(tmp_path / "dicom"), **changes), out)
        images = pd.read_parquet(out / "images.parquet")
        paths = pd.read_parquet(out / "private/paths.parquet")
        names = paths.assign(name=[Path(path).stem for path in paths["path"]])[["image", "name"]]
        return images.merge(names, on="image").set_index("name"), json.loads((out / "summary.json").read_text())

    return run
