"""The audit as typed: a table, a manifest with films, real predictions; what is written, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.files import write_bytes


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """python -m domainseg.audit with these arguments."""
    command = [sys.executable, "-m", "domainseg.audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def read(folder: Path) -> dict[str, Any]:
    """audit.json of a folder."""
    found: dict[str, Any] = json.loads((folder / "audit.json").read_text())
    return found


def test_films_of_two_sites_where_the_site_gives_the_label_away(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)  # sex is drawn at random: at its level one draw in twenty says "readable", as 0 does
    rows = []
    for k in range(80):
        site, sharp = ("A", 1.0) if k % 2 else ("B", 3.0)
        pixels = cv2.GaussianBlur(rng.integers(0, 255, (96, 80), dtype=np.uint8), (0, 0), sharp)
        write_bytes(tmp_path / f"{k}.png", cv2.imencode(".png", pixels)[1].tobytes())
        rows.append((f"{k}.png", k, site, rng.choice(["F", "M"]), int(rng.random() < (0.8 if k % 2 else 0.2))))
    films = pd.DataFrame(rows, columns=["image", "patient", "site", "sex", "label_edema"])
    films.to_csv(tmp_path / "films.csv", index=False)
    (tmp_path / "3.png").write_bytes(b"no picture")
    done = run("data=manifest", f"data.path={tmp_path / 'films.csv'}", f"output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "SHORTCUT AT HAND" in done.stdout
    found = read(tmp_path / "out")
    site, sex = found["targets"]["edema"]["attributes"][0], found["targets"]["edema"]["attributes"][5]
    assert (site["attribute"], site["verdict"]) == ("site", "at hand")
    assert site["detectable"]["image"]["auc"]["value"] > 0.95
    product = site["associated"]["utility"]["value"] * (2 * site["detectable"]["image"]["auc"]["value"] - 1)
    assert site["risk"]["value"] == pytest.approx(product)
    assert 0 < site["risk"]["low"] < product < site["risk"]["high"] < 1
    assert sex["risk"]["low"] == 0
    assert (sex["attribute"], sex["verdict"]) == ("sex", "nothing")
    assert any("1 of 80 films could not be read" in line for line in found["said"])
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "What a sceptical reader would still ask" in page
    assert page.count("data:image/svg+xml") == 1


@pytest.mark.real_data
def test_real_chexnet_by_view(shared_data: Path, tmp_path: Path) -> None:
    """Known of these predictions: effusion PA 0.913, AP 0.836; cardiomegaly 0.939, 0.871."""
    from domainseg.data.sources import nih_cxr14

    nih_cxr14.predictions(shared_data / "nih_cxr14").to_parquet(tmp_path / "nih.parquet")
    arguments = ["target=[effusion,cardiomegaly]", "attributes=[view]", f"output={tmp_path / 'out'}"]
    done = run(f"predictions={tmp_path / 'nih.parquet'}", *arguments)
    assert done.returncode == 0, done.stderr
    for target, known in (("effusion", (0.836, 0.913)), ("cardiomegaly", (0.871, 0.939))):
        view = read(tmp_path / "out")["targets"][target]["attributes"][0]
        assert [group["name"] for group in view["groups"]] == ["AP", "PA"]
        assert [group["auc"]["value"] for group in view["groups"]] == pytest.approx(known, abs=0.0006)
        assert view["verdict"] == "uneven"
    assert page_is_whole(tmp_path / "out" / "audit.html")


def page_is_whole(path: Path) -> bool:
    """Whether the page ends as it should and fetches nothing."""
    text = path.read_text()
    return text.rstrip().endswith("</html>") and "http://" not in text.replace("http://www.w3.org", "")


def test_nothing_to_audit_is_told_in_one_line(tmp_path: Path) -> None:
    done = run(f"output={tmp_path / 'out'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing to audit: give predictions=FILE")
    assert "Traceback" not in done.stderr
