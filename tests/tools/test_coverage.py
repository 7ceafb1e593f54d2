"""The coverage of intervals at small size; tools/coverage itself makes 4,000 simulations a cell."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

TOOL = Path(__file__).resolve().parents[2] / "tools" / "coverage"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    loader = SourceFileLoader("coverage_tool", str(TOOL))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    first = sys.path[0]
    sys.modules[loader.name] = module  # where dataclasses look themselves up
    try:
        loader.exec_module(module)
    finally:
        sys.path[0] = first
    return module


def test_simulated_scores_have_the_auc_and_the_correlation_they_are_said_to_have(tool: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for rows in (tool.ONE, tool.MIXED, tool.ALIKE):
        label, score, patient = tool.drawn(rng, tool.Cell(0.85, 20_000, 20_000, rows))
        assert roc_auc_score(label, score) == pytest.approx(0.85, abs=0.01)
        assert np.bincount(patient).max() == (1 if rows == tool.ONE else 2)
        if rows != tool.ONE:
            rest = score - label * (score[label == 1].mean() - score[label == 0].mean())
            order = np.argsort(patient, kind="stable")
            assert np.corrcoef(rest[order][::2], rest[order][1::2])[0, 1] == pytest.approx(0.5, abs=0.03)


def test_cells_with_a_verdict_are_those_that_are_promised(tool: ModuleType) -> None:
    asked = {
        (a, p, n, r) for a in (0.7, 0.85, 0.95) for p, n in ((50, 500), (200, 400)) for r in (tool.ONE, tool.MIXED)
    }
    assert {(c.auc, c.positives, c.negatives, c.rows) for c in tool.cells() if c.verdict} == asked


def test_the_hardest_of_them_in_short(tool: ModuleType) -> None:
    """Plain DeLong covers 90 % here; 600 simulations have a standard error of 0.9 points."""
    cell = next(c for c in tool.cells() if (c.auc, c.positives, c.rows, c.verdict) == (0.95, 50, tool.MIXED, True))
    found = tool.simulate(cell, 600)
    assert 92.3 < found["coverage"] < 97.7
    for name in tool.INTERVALS:
        assert tool.simulate(replace(cell, interval=name, verdict=False), 3)["coverage"] >= 0


def test_a_cell_outside_fails_the_command(tool: ModuleType, tmp_path: Path) -> None:
    """With two simulations no cell can lie within the limits."""
    command = [sys.executable, str(TOOL), "--simulations", "2", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "| 0.85 | 200 / 400 | two, labels at random |" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"coverage.md", "coverage.json"}
