"""The label command as it is typed, on reports that are as untidy as real ones."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from .conftest import command

pytestmark = pytest.mark.slow
PLACES = ["aorta", "trachea", "hila", "spine", "diaphragm", "ribs", "clavicles", "mediastinum", "stomach", "vessels"]


def other(n: int) -> str:
    """A sentence that no two of 100 reports share, so that none is held back as a copy."""
    return f"The {PLACES[n // 10 % 10]} and the {PLACES[n % 10]} are as before."


def test_rules_and_learned_labels(tmp_path: Path) -> None:
    texts = [
        "FINDINGS: No effusion. Dr. Kowalczyk called.",
        "Small left EFFUSION, 1.5 cm.",
        "Effusion has resolved.",
        "",
    ]
    rows = [{"acc, no": f"a={n}", "patient": f"p{n % 30}", "body": f"{texts[n % 3]} {other(n)}"} for n in range(120)]
    rows += [
        {"acc, no": "a=0", "patient": "p0", "body": "Addendum: caf\xe9."},
        {"acc, no": "e", "patient": "", "body": ""},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "my reports.csv", index=False, encoding="latin-1")
    labels = pd.DataFrame(
        {"acc, no": [f"a={n}" for n in range(100)], "Effusion": [int(n % 3 == 1) for n in range(100)]}
    )
    labels.to_csv(tmp_path / "labels.csv", index=False)
    columns = "columns={report: 'acc, no', text: body}"
    printed = command("label", "reports=my reports.csv", columns, "targets=[effusion]", "output=rules", cwd=tmp_path)
    rules = pd.read_csv(tmp_path / "rules/labels.csv")
    assert rules["label_effusion"][:120].tolist() == [0, 1, 0] * 40
    assert "not in UTF-8" in printed
    argv = ("features=[context]", "min_count=3", "labels=labels.csv", "output=learned")
    printed = command("label", "reports=my reports.csv", columns, *argv, cwd=tmp_path)
    learned = pd.read_csv(tmp_path / "learned/labels.csv")
    assert learned["label_Effusion"][100:120].tolist() == [int(n % 3 == 1) for n in range(100, 120)]
    assert set(learned["source_Effusion"][100:120]) == {"model"}
    assert "Effusion: AUC 1.000" in printed
    for file in ("report.html", "metrics.json", "models.json", "label.yaml", "label.log"):
        assert "Kowalczyk" not in (tmp_path / "learned" / file).read_text()
    wrong = command("label", "reports=my reports.csv", "output=wrong", cwd=tmp_path, code=1)
    assert "error: " in wrong
    assert "column report is missing; found: acc, no, patient, body" in wrong
