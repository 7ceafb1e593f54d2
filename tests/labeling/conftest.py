"""One run of the label command on simulated reports, for all tests that look at what it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from domainseg.labeling.run import run

from .synthetic import Simulated, simulate

CONF = Path(__file__).resolve().parents[2] / "conf"
NAME = "Kowalczyk"  # planted: a radiologist's name in many reports, and another in one patient's only


def settings(**given: Any) -> dict[str, Any]:
    """conf/label.yaml with changes."""
    plain = OmegaConf.to_container(OmegaConf.load(CONF / "label.yaml"))
    assert isinstance(plain, dict)
    return {**{str(key): value for key, value in plain.items() if key not in ("output", "hydra", "defaults")}, **given}


@dataclass(frozen=True)
class Labelled:
    """What went in and what came out."""

    simulated: Simulated
    hand: pd.DataFrame
    metrics: dict[str, Any]
    folder: Path
    given: pd.DataFrame


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    """800 reports, 600 of them labelled by hand: two findings, one that is too rare, one that is never there."""
    folder = tmp_path_factory.mktemp("label")
    simulated = simulate(800, seed=7)
    reports = simulated.reports.copy()
    reports.loc[reports.index % 3 == 0, "text"] += f" The film was discussed with {NAME} of the ward."
    reports.loc[reports["patient"] == reports["patient"][0], "text"] += " The film of mrs jankowska shows effusion."
    reports.loc[799, "text"] = ""
    hand = simulated.labels[["report", "effusion", "nodule"]].iloc[:600].astype({"effusion": object})
    hand["rare"] = (np.arange(600) % 200 == 0).astype(int)
    hand["never"] = 0
    hand.loc[::10, "effusion"] = ""
    reports.to_csv(folder / "reports.csv", index=False)
    hand.to_csv(folder / "labels.csv", index=False)
    out = folder / "out"
    cfg = settings(
        reports=str(folder / "reports.csv"), labels=str(folder / "labels.csv"), features=["ngrams", "context"]
    )
    metrics = run(cfg, out)
    return Labelled(simulated, hand, metrics, out, pd.read_csv(out / "labels.csv", dtype={"report": str}))
