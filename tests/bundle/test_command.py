"""The predict command on bundles: one table whatever the workers and interruptions; exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.bundle.journal import Journal
from domainseg.bundle.load import load_bundle
from domainseg.config import launch
from domainseg.predict import predict

PREDICT = [sys.executable, "-m", "domainseg.predict"]


def run(*argv: str) -> int:
    code: int = launch(predict, "predict", [*argv, "threads=1"])
    return code


def tables(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "predictions.csv").read_bytes(), (folder / "predictions.parquet").read_bytes()


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory, bundle: Path, films: Path) -> Path:
    """The folder of a prediction of all films by one worker; its exit code was 3."""
    output = tmp_path_factory.mktemp("predicted") / "one"
    assert run(f"bundle={bundle}", f"input={films}", f"output={output}", "overlays=true") == 3
    return output


def test_the_table_holds_what_the_bundle_says_of_each_film(predicted: Path, bundle: Path, films: Path) -> None:
    table = pd.read_parquet(predicted / "predictions.parquet")
    loaded = load_bundle(bundle, threads=1)
    rows = [row for file in films.rglob("*[0-9].*") for row in loaded.predict(file, str(file.relative_to(films)))]
    wanted = {(row["image"], row["part"]): row for row in rows}
    scored = table[table["excluded_by"] == ""]
    assert set(zip(scored["image"], scored["part"], strict=True)) == set(wanted)
    for row in scored.to_dict("records"):
        expected = wanted[row["image"], row["part"]]
        assert {key: row[key] for key in expected} == expected
    (broken,) = table[table["image"] == "broken.dcm"].to_dict("records")
    assert (broken["excluded_by"], broken["exclusion_reason"]) == ("read", "unreadable")
    assert pd.isna(broken["outside"])  # of what was not read nothing is known
    assert set(table["bundle_sha256"]) == {loaded.sha256}
    assert table[["image", "part"]].equals(table[["image", "part"]].sort_values(["image", "part"]))
    assert not (predicted / "journal.jsonl").exists()


def test_overlays_of_a_bundle_are_drawn_without_torch(predicted: Path) -> None:
    names = {path.name for path in (predicted / "overlays").iterdir()}
    assert names == {f"film{k}.png.png" for k in (1, 3, 5)} | {f"ward%2Ffilm{k}.dcm.png" for k in (0, 2, 4)}
    picture = cv2.imread(str(predicted / "overlays/film5.png.png"))
    assert int(np.ptp(picture, axis=2).max()) > 50  # colours on a grey film


def test_two_workers_write_the_same_table(predicted: Path, bundle: Path, films: Path, tmp_path: Path) -> None:
    argv = (f"bundle={bundle}", f"input={films}", f"output={tmp_path}/two", "overlays=true", "workers=2")
    assert run(*argv, f"key={predicted}/private/patient.key") == 3
    assert tables(tmp_path / "two") == tables(predicted)


def test_openvino_agrees(predicted: Path, bundle: Path, films: Path, tmp_path: Path) -> None:
    assert run(f"bundle={bundle}", f"input={films}", f"output={tmp_path}/ov", "backend=openvino") == 3
    one, other = (pd.read_parquet(folder / "predictions.parquet") for folder in (predicted, tmp_path / "ov"))
    numbers = one.select_dtypes("number").columns
    pd.testing.assert_frame_equal(one.drop(columns=numbers), other.drop(columns=numbers))
    pd.testing.assert_frame_equal(one[numbers], other[numbers], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Path:
    """A folder of 120 films."""
    folder = tmp_path_factory.mktemp("many")
    for k in range(120):
        (folder / f"f{k:03}.dcm").write_bytes((films / f"ward/film{2 * (k % 3)}.dcm").read_bytes())
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, bundle: Path, many: Path) -> Path:
    """Their prediction, not interrupted."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert run(f"bundle={bundle}", f"input={many}", "workers=2", f"output={output}") == 0
    return output


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_prediction_that_was_stopped_goes_on(
    bundle: Path, many: Path, whole: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    argv = [f"bundle={bundle}", f"input={many}", "threads=1", "workers=2"]
    key = f"key={whole}/private/patient.key"
    journal = tmp_path / "cut/journal.jsonl"
    # Whoever starts the tests in the background has an interrupt ignored, and so would what they start.
    listening = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('domainseg.predict', run_name='__main__')"
    )
    command = [sys.executable, "-c", listening, *argv, f"output={tmp_path}/cut", key]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 10):
        time.sleep(0.001)
    process.send_signal(stop)
    process.wait()
    done = journal.read_bytes().count(b"\n") - 1
    assert 0 < done < 120, "it was not stopped in the middle"
    assert not (tmp_path / "cut/predictions.csv").exists()
    assert run(*argv, f"output={tmp_path}/cut", key) == 0
    assert f"{done} of 120 films were done before" in (tmp_path / "cut/predict.log").read_text()
    assert tables(tmp_path / "cut") == tables(whole)


def test_workers_of_a_killed_prediction_end(bundle: Path, many: Path, tmp_path: Path) -> None:
    argv = [*PREDICT, f"bundle={bundle}", f"input={many}", "threads=1", "workers=2", f"output={tmp_path}/cut"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children: list[int] = []
    while process.poll() is None and len(children) < 2:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        children = [int(pid) for pid in text.split()]
        time.sleep(0.005)
    assert (len(children), process.poll()) == (2, None)
    process.kill()
    process.wait()
    for _ in range(400):
        if not [pid for pid in children if _alive(pid)]:
            return
        time.sleep(0.05)
    pytest.fail("workers outlived the command by 20 seconds")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_journal_of_other_films_or_another_bundle_is_refused(
    bundle: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = {"bundle": "0" * 64, "backend": "onnxruntime", "precision": "fp32", "inputs": "1"}
    header |= {"films": 7, "overlays": False, "masks": False, "seg": False, "memory_gb": None}
    Journal(tmp_path / "out/journal.jsonl", header).close()
    with pytest.raises(SystemExit) as stopped:
        run(f"bundle={bundle}", f"input={films}", f"output={tmp_path}/out")
    assert stopped.value.code == 1
    assert "an unfinished prediction with other bundle, inputs, key lies there" in capsys.readouterr().err


def test_a_finished_table_is_taken_up_and_never_overwritten(
    bundle: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [f"bundle={bundle}", f"output={tmp_path}/out"]
    assert run(*argv, f"input={films}/film1.png") == 0
    before = (tmp_path / "out/predictions.parquet").stat().st_mtime_ns
    assert run(*argv, f"input={films}/film1.png") == 0
    assert (tmp_path / "out/predictions.parquet").stat().st_mtime_ns == before
    with pytest.raises(SystemExit) as stopped:
        run(*argv, f"input={films}/broken.dcm")
    assert stopped.value.code == 1
    assert "holds a prediction table with other inputs; name another folder" in capsys.readouterr().err
    assert (tmp_path / "out/predictions.parquet").stat().st_mtime_ns == before


def test_the_table_of_a_run_is_not_replaced(
    bundle: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What train leaves in its folder has no record of a prediction beside it."""
    (tmp_path / "predictions.parquet").write_bytes(b"of a run")
    with pytest.raises(SystemExit) as stopped:
        run(f"bundle={bundle}", f"input={films}/film1.png", f"output={tmp_path}")
    assert stopped.value.code == 1
    assert "holds the prediction" in capsys.readouterr().err
    assert (tmp_path / "predictions.parquet").read_bytes() == b"of a run"


def test_exit_codes(bundle: Path, films: Path, tmp_path: Path) -> None:
    assert run(f"bundle={bundle}", f"input={films}/film1.png", f"output={tmp_path}/a") == 0
    assert run(f"bundle={bundle}", f"input={films}/broken.dcm", f"output={tmp_path}/b") == 1
    table = pd.read_parquet(tmp_path / "b/predictions.parquet")
    assert (table["excluded_by"].tolist(), table["outside"].tolist()) == (["read"], [None])


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["bundle=HERE", "memory_gb=nan"], 2, "memory_gb=nan: must be a number"),
        (["bundle=HERE", "memory_gb=much"], 2, "memory_gb=much: must be a number"),
        (["bundle=HERE", "workers=1.5"], 2, "workers=1.5: must be a whole number"),
        ([], 2, "give one of bundle=DIR"),
        (["bundle=HERE", "run=HERE"], 2, "give one of bundle=DIR"),
        (["run=HERE", "backend=openvino"], 2, "backend= and precision= are for bundle=DIR"),
        (["bundle=HERE", "accelerator=gpu"], 2, "a bundle runs on the processor"),
        (["bundle=nowhere"], 1, "bundle=nowhere: does not exist"),
        (["bundle=BUNDLE", "workers=0"], 1, "workers=0: at least 1"),
        (["bundle=BUNDLE", "precision=bf16"], 1, "precision=bf16 needs backend=openvino"),
        (["bundle=BUNDLE", "memory_gb=0.01"], 1, "memory_gb=0.01: one worker takes"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    bundle: Path,
    films: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    code: int,
    message: str,
) -> None:
    typed = [word.replace("BUNDLE", str(bundle)).replace("HERE", str(tmp_path)) for word in argv]
    with pytest.raises(SystemExit) as stopped:
        run(*typed, f"input={films}", f"output={tmp_path}/out")
    assert stopped.value.code == code
    assert message in capsys.readouterr().err


def test_truth_of_a_manifest_is_measured_as_in_training(bundle: Path, films: Path, tmp_path: Path) -> None:
    """A fractured hip with a lesion that the map's strongest cell meets or not, through worker processes."""
    table = pd.DataFrame(
        {
            "image": ["a", "a"],
            "path": [f"{films}/film5.png"] * 2,
            "patient": ["p", "p"],
            "part": ["hip_left", "hip_right"],
            "x": [30.0, 70.0],
            "y": [50.0, 50.0],
            "label_localizer": [1, 1],
            "label_fracture": [1, 0],
            "polygon": ["0 0 99 0 99 129 0 129", ""],
        }
    )
    table.to_csv(tmp_path / "films.csv", index=False)
    assert run(f"bundle={bundle}", f"input={tmp_path}/films.csv", f"output={tmp_path}/out", "workers=2") == 0
    found = pd.read_parquet(tmp_path / "out/predictions.parquet").set_index("part")
    assert found["label_fracture"].to_dict() == {"hip_left": 1.0, "hip_right": 0.0}
    assert found.loc["hip_left", "pointing_hit"] == 1.0  # the lesion is the whole film
    assert found["patient"].nunique() == 1
    assert "p" not in set(found["patient"])
    assert os.stat(tmp_path / "out/private/patient.key").st_mode & 0o077 == 0
