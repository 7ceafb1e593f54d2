from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from domainseg.files import DomainsegError
from domainseg.imaging import geometry, patient_side, read_film
from domainseg.phantom import contact_sheet, film, simulate
from domainseg.phantom.settings import Settings

CFG = {"n": 7, "seed": 3, "reduction": 6, "turned": 0.5}


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    simulate({**CFG, "workers": 1}, folder)
    return folder


def test_two_workers_write_the_same_bytes(made: Path, tmp_path: Path) -> None:
    simulate({**CFG, "workers": 2}, tmp_path)
    assert hashes(tmp_path) == hashes(made)


def test_complete_films_are_kept_and_missing_ones_made_again(made: Path) -> None:
    before = hashes(made)
    kept, lost = made / "images" / "film000001.dcm", made / "images" / "film000002.dcm"
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    simulate({**CFG, "workers": 1}, made)
    assert kept.stat().st_mtime_ns == stamp
    assert hashes(made) == before


def test_other_settings_are_refused_in_the_same_folder(made: Path) -> None:
    with pytest.raises(DomainsegError, match="other settings"):
        simulate({**CFG, "seed": 4, "workers": 1}, made)


def test_the_manifest_has_the_agreed_columns(made: Path) -> None:
    images, targets = pd.read_parquet(made / "images.parquet"), pd.read_parquet(made / "targets.parquet")
    assert {
        "image", "path", "patient", "group", "study", "series", "site", "department", "scanner", "view", "portable",
        "date", "age", "sex",
    } <= set(images.columns)  # fmt: skip
    assert {
        "image", "part", "label_localizer", "label_implant_filter", "label_fracture", "label_location", "x", "y",
        "diameter", "mask", "femur_mask", "fracture_class", "fracture_width_mm", "displacement_mm", "implant",
        "label_view_filter", "label_view", "label_turn",
    } <= set(targets.columns)  # fmt: skip
    assert images["image"].is_unique
    assert set(targets["image"]) == set(images["image"])
    hips = targets[targets["label_localizer"] == 1]
    absent = targets[targets["label_localizer"] == 0]
    assert absent["label_fracture"].isna().all()
    assert not targets.duplicated(["image", "part"]).any()
    assert set(hips["part"]) <= {"hip_left", "hip_right"}
    assert ((hips["label_fracture"] == 1) == (hips["label_location"] != "none")).all()
    for name in [*hips["femur_mask"], *hips["mask"].dropna()]:
        assert (made / name).is_file()
    pd.testing.assert_frame_equal(pd.read_csv(made / "images.csv", dtype=str), images.astype(str), check_dtype=False)


def test_pydicom_reads_what_was_simulated(made: Path) -> None:
    images = pd.read_parquet(made / "images.parquet")
    settings = Settings.of({key: value for key, value in CFG.items() if key != "n"})
    for index, row in images.iterrows():
        data = pydicom.dcmread(made / row["path"])
        simulated = film(settings.seed, int(str(index)), settings)
        np.testing.assert_array_equal(data.pixel_array, simulated.pixels)
        assert data.BitsStored in (12, 14)
        assert data.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
        assert data.PresentationIntentType == "FOR PRESENTATION"
        assert data.PatientID == row["patient"]
        assert "PatientBirthDate" not in data


def test_sides_follow_from_the_tags(made: Path) -> None:
    """The patient's side that the reader derives is the simulated one, on turned films too."""
    images, targets = pd.read_parquet(made / "images.parquet"), pd.read_parquet(made / "targets.parquet")
    turns = targets[targets["part"] == "whole"].set_index("image")["label_turn"]
    merged = targets[targets["label_localizer"] == 1].merge(images[["image", "path"]], on="image")
    for row in merged.to_dict("records"):
        read = read_film(made / row["path"])
        upright = geometry.quarter_turns(read.shape, int(turns[row["image"]]))
        side, source = patient_side(read, upright, row["part"].removeprefix("hip_"))
        assert side == row["side"], source


def test_a_contact_sheet_is_drawn(made: Path, tmp_path: Path) -> None:
    assert contact_sheet(made, tmp_path / "sheet.png").stat().st_size > 50_000


@pytest.mark.slow
def test_a_killed_simulation_leaves_no_process_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """kill -9 of the process that was started, amid the films; then again from there, beside an undisturbed one."""
    code = "import sys, pathlib; from domainseg.phantom import simulate; simulate({}, pathlib.Path(sys.argv[1]))"
    settings = {**CFG, "n": 12, "workers": 2}
    process = subprocess.Popen([sys.executable, "-c", code.format(settings), tmp_path / "killed"])
    children: list[str] = []
    while len(list((tmp_path / "killed").glob("rows/*.json"))) < 3:
        assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        time.sleep(0.01)
    process.kill()
    process.wait()
    partial = tmp_path / "killed/images/.film.partial-abcdefgh.dcm"  # as a killed process may leave it
    partial.write_bytes(b"half")
    deadline = time.monotonic() + 30
    while alive := [pid for pid in children if Path(f"/proc/{pid}/stat").exists() and _runs(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)
    assert len(list((tmp_path / "killed").glob("rows/*.json"))) < 12
    simulate({**settings, "workers": 1}, tmp_path / "killed")
    simulate({**settings, "workers": 1}, tmp_path / "whole")
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


def _runs(pid: str) -> bool:
    """Whether a process is there and no zombie."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
