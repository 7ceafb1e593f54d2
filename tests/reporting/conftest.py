from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def hips() -> pd.DataFrame:
    """A prediction table of the hip cascade: 300 films, two hips each."""
    return _loaded(Path(__file__).parents[1] / "evaluation" / "synthetic.py").prediction_table()


@pytest.fixture(scope="session")
def heads() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The prediction table and the lesion table of the head CT cascade: 100 exams."""
    return _loaded(Path(__file__).parent / "synthetic_heads.py").tables()
