"""The summary of a sweep: one table and one figure of all its jobs, and which of them the selection rule takes.

  sweep.csv   one row a job: what was swept, what became of it, the metric on tune with its interval, and on test
  sweep.json  the same, with the rule and the job that it takes
  sweep.svg   the metric of every job, tune and test

A job is chosen by its value on tune alone. The test figures stand beside it, for jobs that are finished, and choose
nothing: picking a job by them would make them worthless.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from domainseg.evaluation.metrics import get
from domainseg.files import read_json, write_bytes, write_json
from domainseg.reporting.figures import MUTED, NEGATIVE, POSITIVE, as_svg, drawing
from domainseg.sweeps import JOB, SWEEP, read_yaml

RULE = "highest value on tune, the first of equals; test figures choose nothing"


def write_sweep(folder: Path) -> dict[str, Any]:
    """Write sweep.csv, sweep.json and sweep.svg of a sweep as far as it has come; returns what sweep.json holds."""
    typed = read_yaml(folder / SWEEP)["swept"] if (folder / SWEEP).is_file() else []
    found = sorted(folder.glob(f"*/{JOB}"), key=lambda file: (len(file.parent.name), file.parent.name))
    settings = [_settings(read_json(file)["overrides"]) for file in found]
    # A sweeper may vary more than was typed with several values.
    varied = [k for k in dict.fromkeys(k for one in settings for k in one) if len({one.get(k) for one in settings}) > 1]
    swept = list(dict.fromkeys([*map(str, typed), *varied]))
    metric, jobs = "", []
    for file, values in zip(found, settings, strict=True):
        job = read_json(file)
        row = {"job": file.parent.name, "status": job["status"], **{_short(key): values.get(key) for key in swept}}
        metric = f"{read_yaml(file.parent / 'config.yaml').get('target')}.intention.auc"
        row |= _figures(file.parent, metric) if job["status"] == "finished" else {}
        row["value"] = job["value"]
        row["error"] = job.get("error", "")
        jobs.append(row)
    reached = [(job["job"], float(job["value"])) for job in jobs if job["value"] is not None]
    chosen = max(reached, key=lambda pair: pair[1], default=(None, math.nan))[0]
    record = {
        "selection": {"metric": f"tune.{metric}", "rule": RULE, "chosen": chosen},
        "swept": [_short(key) for key in swept],
        "jobs": jobs,
    }
    write_bytes(folder / "sweep.csv", pd.DataFrame(jobs).to_csv(index=False).encode())
    write_json(folder / "sweep.json", record)
    write_bytes(folder / "sweep.svg", draw_sweep(record).encode())
    return record


def _settings(overrides: Sequence[str]) -> dict[str, str]:
    """What a job was started with: key -> value, as typed."""
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs if key not in ("output", "resume")}


def _short(key: str) -> str:
    """The key as users type it: network@stage.fracture.network is stage.fracture.network."""
    return key.rpartition("@")[2]


def _figures(run: Path, metric: str) -> dict[str, Any]:
    """The metric of a finished job on tune and test, with intervals and numbers of cases."""
    row: dict[str, Any] = {}
    if not (run / "metrics.json").is_file():
        return row
    metrics = read_json(run / "metrics.json")
    for split in ("tune", "test"):
        try:
            record = get(metrics, f"{split}.{metric}")
        except KeyError:
            continue
        row |= {f"{split}_auc": record["value"], f"{split}_low": record["low"], f"{split}_high": record["high"]}
        row[f"{split}_n"] = record["n"]
    return row


def draw_sweep(record: Mapping[str, Any]) -> str:
    """The figure as SVG text: a line a job, its metric on tune and test with 95 % intervals, or what became of it."""
    jobs = record["jobs"]
    known = [_number(job.get(key)) for job in jobs for key in ("tune_low", "test_low", "tune_auc", "test_auc")]
    lowest = min((value for value in known if not math.isnan(value)), default=0.0)
    with drawing(1, height=1.8 + 0.34 * len(jobs), width=7.2) as (figure, (axes,)):
        for place, job in enumerate(jobs):
            for shift, split, colour, marker in ((-0.12, "tune", NEGATIVE, "o"), (0.12, "test", MUTED, "s")):
                value = _number(job.get(f"{split}_auc"))
                low, high = _number(job.get(f"{split}_low")), _number(job.get(f"{split}_high"))
                label = split if place == _first_with(jobs, f"{split}_auc") else None
                axes.plot([low, high], [place + shift] * 2, color=colour, linewidth=1.2)
                axes.plot([value], [place + shift], marker=marker, linestyle="", color=colour, label=label)
            if job["status"] != "finished":
                axes.text(0.5 + lowest / 2, place, job["status"], color=POSITIVE, va="center", fontsize=8)
        names = [
            f"{job['job']}: " + ", ".join(f"{key.rpartition('.')[2]} {_value(job[key])}" for key in record["swept"])
            for job in jobs
        ]
        chosen = record["selection"]["chosen"]
        axes.set_yticks(
            range(len(jobs)), [f"{n} *" if j["job"] == chosen else n for n, j in zip(names, jobs, strict=True)]
        )
        axes.set_ylim(len(jobs) - 0.5, -0.5)
        axes.set_xlim(lowest - 0.02, 1.02)
        axes.set_xlabel("AUC on intention; * highest on tune")
        axes.set_title("Jobs of the sweep")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")
        return as_svg(figure)


def _first_with(jobs: Sequence[Mapping[str, Any]], key: str) -> int:
    return next((place for place, job in enumerate(jobs) if job.get(key) is not None), -1)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _value(text: Any) -> str:
    """A swept value as short as it can be told: numbers that a sweeper proposed have many digits."""
    try:
        return f"{float(text):.4g}"
    except (TypeError, ValueError):
        return str(text)
