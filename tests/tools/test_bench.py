"""The benchmark: its arithmetic and verdicts, and that each topic runs at toy size."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench() -> Any:
    """Imports a module of tools/bench by name."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        yield lambda name: importlib.import_module(f"bench.{name}")
    finally:
        sys.path.remove(str(ROOT / "tools"))
        for name in [name for name in sys.modules if name.partition(".")[0] == "bench"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def toy(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Options at toy size; the bundle and the films are made once for all tests here."""
    scratch = tmp_path_factory.mktemp("bench")
    return bench("measure").Options(
        scratch=scratch, short=True, size=256, rounds=1, films=3, slope_films=3, cases=200, resamples=20,
        commands=("evaluate",),
    )  # fmt: skip


def test_a_ratio_is_the_median_over_rounds_with_its_quartiles(bench: Any) -> None:
    row = bench("measure").ratio_row("new", "old", [2.0, 9.0, 4.0, 6.0, 10.0], [1.0, 3.0, 1.0, 1.0, 2.0])
    assert (row.low, row.ratio, row.high, row.n) == (3.0, 4.0, 5.0, 5)  # of the ratios 2, 3, 4, 6, 5


def test_speeds_divide_the_baselines_time_by_ones_own(bench: Any) -> None:
    measure = bench("measure")
    rows = measure.speed_rows({"old": [3.0], "new": [1.5]}, "old", {"new": measure.Target(1.9)}, {"new": "n"})
    assert [(row.what, row.baseline, row.ratio, row.met) for row in rows] == [
        ("old", "itself", 1.0, None),
        ("new", "old", 2.0, True),
    ]
    assert rows[1].note == "1.5 s, n"


@pytest.mark.parametrize(
    ("limit", "most", "eased"),
    [(1.7, False, 1.35), (4, False, 2.5), (0.5, True, 0.75), (1.25, True, 1.5)],
)
def test_half_the_margin(bench: Any, limit: float, most: bool, eased: float) -> None:
    target = bench("measure").Target(limit, most).eased()
    assert target.limit == pytest.approx(eased)
    worse = 1.001 if most else 0.999
    assert target.met(eased) is True
    assert target.met(eased * worse) is False
    assert target.met(np.float64(eased * worse)) is False


def test_all_ways_take_turns_and_each_goes_first(bench: Any) -> None:
    calls: list[str] = []
    ways = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    seconds = bench("measure").interleave(ways, 3, warm=1)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_slope_of_memory_in_kilobytes_a_film(bench: Any) -> None:
    memory = [500 + 2 * k / 1024 + (30 if k % 17 == 0 else 0) for k in range(300)]  # 2 KB a film, and spikes
    row = bench("memory").row(memory, short=False)
    assert row.ratio == pytest.approx(2, rel=1e-6)
    assert row.met is False
    assert bench("memory").row([500 + 0.5 * k / 1024 for k in range(300)], short=False).met is True
    assert bench("memory").row([500 + 8.0 * k for k in range(60)], short=True).met is False  # a film of 8 MB is kept


def test_report_says_what_was_missed_and_when_the_machine_was_busy(bench: Any) -> None:
    measure, report = bench("measure"), bench("report")
    rows = measure.speed_rows({"old": [1.0], "new": [2.0]}, "old", {"new": measure.Target(1.5)})
    machine = bench("machine").machine() | {"load": [9.0, 0, 0], "cores": 2}
    found = json.loads(
        json.dumps(report.result(machine, {"size": 1}, {"toy": measure.Section("x", rows)}, {"g": "no"}))
    )
    assert found["missed"] == ["toy: new"]
    assert [row["met"] for row in found["topics"]["toy"]["rows"]] == [None, False]
    text = report.markdown(found)
    assert "| new | old | 0.5 | 0.5 to 0.5 | 1 | ≥ 1.5 | NO | 2 s |" in text
    assert "BUSY MACHINE" in text
    assert "Skipped: no" in text
    assert "BUSY" not in report.markdown(found | {"machine": machine | {"load": [0.1, 0, 0]}})


def test_a_miss_in_the_short_form_is_measured_once_more(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = bench("measure")
    ratios = iter([1.2, 1.4])  # the target 1.7 eases to 1.35
    topic = ModuleType("bench.once")
    topic.measure = lambda options: measure.Section(  # type: ignore[attr-defined]
        "", [measure.ratio_row("a", "b", [next(ratios)], [1.0], measure.Target(1.7))]
    )
    monkeypatch.setitem(sys.modules, "bench.once", topic)
    found = bench("__main__").section("once", None, short=True)
    assert [row.met for row in found.rows] == [True]
    assert next(ratios, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("topic", ["inference", "reading", "intervals", "cascade", "memory"])
def test_topic_runs(bench: Any, toy: Any, topic: str) -> None:
    rows = bench(topic).measure(toy).rows
    assert rows
    for row in rows:
        assert math.isfinite(row.ratio)
        assert row.low <= row.ratio <= row.high
    assert any(row.target for row in rows)


def test_train_step_of_a_process_of_its_own(bench: Any) -> None:
    found = bench("training").cell(512, last=True, checkpoint=True)
    assert set(found) == {"seconds", "peak"}
    assert found["seconds"] > 0


def test_what_cannot_run_here_is_skipped_by_name(bench: Any, toy: Any) -> None:
    skipped = bench("measure").Skipped
    with pytest.raises(skipped, match="--run"):
        bench("norms").measure(toy)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        with pytest.raises(skipped, match="GPU"):
            bench("gpu").measure(toy)


def test_an_unknown_topic_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "bench"), "speed"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown topic speed" in done.stderr
