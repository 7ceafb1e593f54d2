"""Intervals of the AUC: sorted once and resampled by weights, and DeLong's, against scikit-learn in a loop.

And the memory that evaluating 14 findings of 112,120 films takes, which must fit a laptop.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bench.measure import Options, Row, Section, Target, interleave, speed_rows
from domainseg.bundle.workers import peak_bytes
from domainseg.evaluation.intervals import weighted
from domainseg.evaluation.metrics import evaluate
from domainseg.evaluation.roc import auc, weighted_auc

BASELINE = "scikit-learn in a loop"
TARGETS = {"bootstrap, sorted once": Target(20)}
FILMS, FINDINGS, LAPTOP = 112_120, 14, 4.0  # GB that a laptop with 8 has to spare


def measure(options: Options) -> Section:
    """Rows of both intervals against the plain loop, all for the same cases and number of resamples; and of memory."""
    rng = np.random.default_rng(0)
    label = (rng.random(options.cases) < 0.1).astype(np.int64)
    score = rng.normal(size=options.cases) + label

    ways = {
        BASELINE: lambda: loop(label, score, options.resamples),
        "bootstrap, sorted once": lambda: weighted(
            weighted_auc(label, score), np.arange(options.cases), resamples=options.resamples
        ),
        "DeLong": lambda: auc(label, score),
    }
    films = FILMS if not options.short else options.cases
    about = (
        f"{options.cases} cases, one row a patient, 10 % positive, {options.resamples} resamples. Memory: the peak of "
        f"a process that evaluates {FINDINGS} findings of {films} films, 30,805 patients at most, two sites."
    )
    speed = speed_rows(interleave(ways, min(options.rounds, 2), warm=0), BASELINE, TARGETS)
    return Section(about, [*speed, memory(films, options.resamples)])


def loop(label: NDArray[np.int64], score: NDArray[np.float64], resamples: int) -> NDArray[np.float64]:
    """Percentile bounds of the AUC as one writes them first."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(resamples):
        rows = rng.integers(0, len(label), len(label))
        values.append(roc_auc_score(label[rows], score[rows]))
    return np.quantile(values, [0.025, 0.975])


def memory(films: int, resamples: int) -> Row:
    """Peak memory in parts of LAPTOP, of a process that does nothing else."""
    command = [sys.executable, "-m", "bench.intervals", str(films), str(resamples)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    peak = float(out.stdout.split()[-1])
    ratio = peak / LAPTOP
    return Row("peak memory", f"{LAPTOP:g} GB", ratio, ratio, ratio, 1, Target(1, most=True), f"{peak:.2f} GB")


def findings(films: int) -> pd.DataFrame:
    """A prediction table of so many films: 14 findings, several films a patient, two sites."""
    rng = np.random.default_rng(0)
    table = {"image": np.arange(films), "patient": np.arange(films) * 30_805 // FILMS, "site": np.arange(films) % 2}
    for k in range(FINDINGS):
        label = rng.random(films) < 0.01 + 0.01 * k
        table |= {f"label_f{k}": label.astype(np.int8), f"score_f{k}": rng.beta(1 + label, 8)}
        table[f"threshold_f{k}"] = np.full(films, 0.1)
    return pd.DataFrame(table)


if __name__ == "__main__":
    evaluate(findings(int(sys.argv[1])), resamples=int(sys.argv[2]))
    print(peak_bytes() / 2**30)
