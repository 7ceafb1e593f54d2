from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest


def _synthetic() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "synthetic", Path(__file__).parents[1] / "evaluation" / "synthetic.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def hips() -> pd.DataFrame:
    """A prediction table of the hip cascade: 300 films, two hips each."""
    return _synthetic().prediction_table()
