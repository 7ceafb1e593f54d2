"""kill -9 at any moment, then resume=true: weights and table are those of a run that nobody stopped, bit by bit.

One run is killed several times on its way. The moments are aimed at by what the run folder holds (a landmark) plus a
share, drawn from a seed, of the time until the next landmark in the undisturbed run. Three moments by default; with
DOMAINSEG_KILLS=all twenty, over every part of a run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from domainseg.files import read_json

pytestmark = pytest.mark.slow

STAGES = ("view_filter", "localizer", "implant_filter", "fracture")
TYPED = ["+pipeline=hip", "+experiment=tiny", "data.workers=1", "trainer.threads=1"]
KEY = "ab" * 32 + "\n"  # of the hashes of patients: tables of two runs can be compared


# What says how far a run is, in the order in which it gets there; the folder holds run/, films/ and cache/.
LANDMARKS = {
    "start": "run/config.yaml",
    "simulation": "films/rows/*.json",
    "films": "films/complete.json",
    "cache": "cache/??/[!.]*.npy",
    "view_filter/fit": "run/stages/view_filter/fit-*.sha256",
    "view_filter": "run/stages/view_filter/stage.json",
    "localizer/fit": "run/stages/localizer/fit-*.sha256",
    "localizer": "run/stages/localizer/stage.json",
    "implant_filter/fit": "run/stages/implant_filter/fit-*.sha256",
    "implant_filter": "run/stages/implant_filter/stage.json",
    "film labels": "run/stages/film_labels.json",
    "fracture/patch": "run/stages/fracture/patch-*.sha256",
    "fracture/tail": "run/stages/fracture/tail-*.sha256",
    "fracture": "run/stages/fracture/stage.json",
    "table": "run/predictions.csv",
    "pictures": "run/pictures/*.png",
    "metrics": "run/metrics.json",
    "report": "run/report.html",
    "export": "run/resources.json",
    "end": "run/bundle/SHA256SUMS",
}
CHAINS: dict[str, Sequence[str]] = {  # each is one run, killed at these landmarks
    "three": ("localizer/fit", "fracture/tail", "export"),
    "beginning": ("start", "simulation", "films", "cache", "view_filter/fit", "view_filter"),
    "middle": ("localizer/fit", "localizer", "implant_filter/fit", "implant_filter", "film labels", "fracture/patch"),
    "end": ("fracture", "table", "pictures", "metrics", "export"),
}


@dataclass
class Reference:
    """A run that nobody stopped: its folder, and when it reached each landmark, in seconds."""

    folder: Path
    reached: dict[str, float]

    def gap(self, landmark: str) -> float:
        """Seconds from a landmark to the one that came after it."""
        times = sorted(self.reached.values())
        after = [when for when in times if when > self.reached[landmark]]
        return (after[0] if after else times[-1]) - self.reached[landmark]


def reached(folder: Path, landmark: str, since: float = 0.0) -> bool:
    """Whether a landmark was written after ``since``, in seconds of the clock."""
    for path in folder.glob(LANDMARKS[landmark]):
        try:
            if path.stat().st_mtime > since:
                return True
        except FileNotFoundError:
            continue
    return False


def start(folder: Path, *argv: str) -> subprocess.Popen[bytes]:
    """A train command in ``folder``, writing run/."""
    with open(folder / "said.txt", "ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "domainseg.train", "output=run", *argv],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=said,
        )


def prepare(folder: Path) -> None:
    """A folder for a run, with the key."""
    private = folder / "run/private"
    private.mkdir(parents=True, mode=0o700)
    (private / "patient.key").write_text(KEY)
    (private / "patient.key").chmod(0o600)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The undisturbed run."""
    folder = tmp_path_factory.mktemp("reference")
    prepare(folder)
    run, began = start(folder, "data.root=films", "cache.folder=cache", *TYPED), time.monotonic()
    when: dict[str, float] = {}
    while run.poll() is None:
        for name in LANDMARKS:
            if name not in when and reached(folder, name):
                when[name] = time.monotonic() - began
        time.sleep(0.02)
    assert run.returncode == 0, (folder / "said.txt").read_text()[-2000:]
    assert list(when) == list(LANDMARKS)
    return Reference(folder, when)


def fits_under_way(run: Path) -> dict[str, int]:
    """Fits that have a checkpoint and no finished stage: "stage/phase" -> newest step."""
    found: dict[str, int] = {}
    for path in run.glob("stages/*/*.ckpt.sha256"):
        phase, step = re.fullmatch(r"(\w+)-(\d+)\.ckpt\.sha256", path.name).groups()  # type: ignore[union-attr]
        if not (path.parent / "stage.json").is_file():
            name = f"{path.parent.name}/{phase}"
            found[name] = max(found.get(name, 0), int(step))
    return found


def finished(run: Path) -> dict[str, int]:
    """Finished stages: when their weights were written."""
    folders = [run / "stages" / name for name in STAGES]
    return {f.name: (f / "network.pt").stat().st_mtime_ns for f in folders if (f / "stage.json").is_file()}


def kill_at(folder: Path, argv: Sequence[str], landmark: str, wait: float) -> None:
    """Start a run and kill it ``wait`` seconds after the landmark, at the latest when it is at the next one.

    A landmark that lies behind it already counts from where the run starts to work.
    """
    log = folder / "run/train.log"
    behind = reached(folder, landmark)
    said = log.stat().st_size if log.is_file() else 0
    following = [*LANDMARKS, "end"][list(LANDMARKS).index(landmark) + 1]
    began, deadline = time.time(), float("inf")
    process = start(folder, *argv)
    while process.poll() is None:
        works = log.is_file() and log.stat().st_size > said
        if deadline == float("inf") and (reached(folder, landmark, began) or (behind and works)):
            deadline = time.time() + wait
        if time.time() > deadline or reached(folder, following, began):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL, (folder / "said.txt").read_text()[-2000:]


def resumed_steps(run: Path) -> list[tuple[str, int]]:
    """What the log says about fits that went on, in order."""
    text = (run / "train.log").read_text()
    return [(name, int(step)) for name, step in re.findall(r"(\w+/\w+) goes on at step (\d+) of", text)]


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.timeout(900)
def test_a_run_that_was_killed_ends_as_one_that_was_not(reference: Reference, tmp_path: Path, chain: str) -> None:
    if chain != "three" and os.environ.get("DOMAINSEG_KILLS") != "all":
        pytest.skip("DOMAINSEG_KILLS=all kills at all twenty moments")
    prepare(tmp_path)
    films = "films" if chain == "beginning" else str(reference.folder / "films")
    fresh = [f"data.root={films}", "cache.folder=cache", *TYPED]
    rng = np.random.default_rng(sorted(CHAINS).index(chain))
    run = tmp_path / "run"
    kept: dict[str, int] = {}
    awaited: set[tuple[str, int]] = set()
    for landmark in CHAINS[chain]:
        argv = ["resume=true"] if (run / "config.yaml").is_file() else fresh
        gap = reference.gap(landmark)  # that of a fit goes on past its last step
        kill_at(tmp_path, argv, landmark, rng.random() * (min(0.4, gap) if "/" in landmark else gap))
        under_way = fits_under_way(run)
        if landmark in under_way:  # it died inside this fit
            awaited.add((landmark, under_way[landmark]))
        kept |= finished(run)
        print(f"killed at {landmark}: under way {under_way}, finished {sorted(finished(run))}")
    last = start(tmp_path, "resume=true")
    assert last.wait() == 0, (tmp_path / "said.txt").read_text()[-2000:]
    assert awaited or not any("/" in landmark for landmark in CHAINS[chain])
    assert all(step > 0 for _, step in awaited)
    assert awaited <= set(resumed_steps(run))
    same_results(reference.folder / "run", run)
    after = finished(run)
    assert {name: after[name] for name in kept} == kept  # not trained again
    assert not [path.name for path in run.rglob("*") if ".partial-" in path.name or ".ckpt" in path.name]
    assert yaml.safe_load((run / "config.yaml").read_text())["pipeline"] == "hip"


def same_results(one: Path, other: Path) -> None:
    """Weights, frozen numbers, curves, table, metrics and bundle, byte by byte."""
    names = [f"stages/{stage}/{name}" for stage in STAGES for name in ("network.pt", "threshold.json")]
    names += ["predictions.parquet", "predictions.csv", "metrics.json", "cascade.json", "splits.csv"]
    names += ["bundle/SHA256SUMS"]  # with it all files of the bundle
    names += [str(path.relative_to(one)) for path in one.glob("stages/*/*.csv")]
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for stage in STAGES:
        records = [read_json(folder / "stages" / stage / "stage.json") for folder in (one, other)]
        for key in ("sha256", "frozen", "settings", "samples", "cohort"):
            assert records[0][key] == records[1][key], (stage, key)
