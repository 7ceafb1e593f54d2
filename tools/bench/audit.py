"""The audit of a table: from the file to audit.json and audit.html, against reading the table and its AUCs by group.

Also makes the simulated tables whose dependence is known (``table``), for tools/audit_alarms and the tests.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from bench.measure import Options, Section, Target, interleave, ratio_row
from domainseg.evaluation.tables import read_table

ROWS = 20_000
SECONDS = 60  # that the full report of so many rows may take on one core
PICTURES = 1000
PICTURE_SECONDS = 600  # that so many films, read and probed, may take

SCENARIOS = ("off", "prevalence", "case_mix", "hidden", "severe")
SETTINGS: dict[str, Any] = {
    "predictions": None,
    "bundle": None,
    "data": None,
    "columns": {},
    "target": None,
    "split": "test",
    "seed": 0,
    "attributes": None,
    "severity": [],
    "least": 10,
    "workers": 1,
    "alarm": {
        "level": 0.05,
        "associated": 0.55,
        "shift": 0.05,
        "fall": 0.01,
        "uneven": 0.05,
        "detectable": 0.6,
    },
}


def table(scenario: str, n: int = 2000, seed: int = 0) -> pd.DataFrame:
    """A prediction table of n cases, two a patient, of three sites; the dependence is the scenario's.

    off: no attribute goes with the label, and the score of label "finding" moves with none; that of "other" moves with
    the site by 1.5 SD, so that the site can be read. prevalence: sites have 5, 15 and 40 % positives, and the score
    knows the label alone. case_mix, hidden: patients of the sites differ in severity, which makes label and score (the
    column severity is there, or not). severe: as prevalence, and the score moves towards the site's prevalence.
    """
    rng = np.random.default_rng((seed, SCENARIOS.index(scenario)))
    patient = np.repeat(np.arange(n // 2), 2)
    site = rng.choice(3, n // 2, p=[0.5, 0.3, 0.2])[patient]
    own = rng.normal(size=n // 2)[patient]  # what the films of a patient share
    noise = np.sqrt(0.5) * own + np.sqrt(0.5) * rng.normal(size=n)
    severity = rng.normal(size=n) + np.array([0.0, 0.5, 1.0])[site]
    if scenario in ("case_mix", "hidden"):
        label = (severity + 0.5 * rng.normal(size=n) > 1.2).astype(float)
        logit = 1.5 * severity + noise
    else:
        prevalence = np.full(3, 0.2) if scenario == "off" else np.array([0.05, 0.15, 0.4])
        label = (rng.random(n) < prevalence[site]).astype(float)
        moved = 0.6 * np.log(prevalence / (1 - prevalence))[site] if scenario == "severe" else 0.0
        logit = 1.5 * label + noise + moved
    other = (rng.random(n) < 0.3).astype(float)
    out = pd.DataFrame(
        {
            "image": [f"film-{k}" for k in range(n)],
            "patient": patient,
            "site": np.array(["A", "B", "C"])[site],
            "scanner": np.where(site == 0, rng.choice(["DX-1", "DX-2"], n), rng.choice(["DX-3", "DX-4"], n)),
            "view": np.where(rng.random(n) < np.array([0.2, 0.4, 0.6])[site], "AP", "PA"),
            "sex": rng.choice(["F", "M"], n // 2)[patient],
            "age": np.clip(rng.normal(60, 18, n // 2), 18, 99).round()[patient],
            "label_finding": label,
            "score_finding": 1 / (1 + np.exp(1.5 - logit)),
            "label_other": other,
            "score_other": 1 / (1 + np.exp(1 - other - noise - 1.5 * site)),
        }
    )
    return out.assign(severity=severity) if scenario == "case_mix" else out


def measure(options: Options) -> Section:
    """Seconds of the limit over the audit's own: of a table of 20,000 rows, of 1,000 films, of a bundle with films."""
    from domainseg.probes.audit import run

    n = 2000 if options.short else ROWS
    source = options.scratch / "audit.csv"
    table("severe", n, 1).to_csv(source, index=False)

    def audit() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            run({**SETTINGS, "predictions": source}, options.scratch / "audit")

    def plain() -> None:
        found = read_table(source)
        for target in ("finding", "other"):
            for name in ("site", "scanner", "view", "sex"):
                for _, part in found.groupby(name):
                    roc_auc_score(part[f"label_{target}"], part[f"score_{target}"])

    seconds = interleave({"audit": audit, "plain": plain}, min(options.rounds, 3))
    limit = [SECONDS * n / ROWS] * len(seconds["audit"])
    note = f"{statistics.median(seconds['audit']):.1f} s, {n} rows, 2 targets, 5 attributes, with the page"
    rows = [
        ratio_row("table to report", f"{limit[0]:g} s", limit, seconds["audit"], Target(1), note),
        ratio_row("table to report", "sklearn's AUC by group, slower by", seconds["audit"], seconds["plain"]),
    ]
    films = 60 if options.short else PICTURES
    spent = _pictures(options.scratch, films)
    allowed = [PICTURE_SECONDS * films / PICTURES]
    note = f"{spent:.1f} s, {films} films"
    rows.append(ratio_row("films read and probed", f"{allowed[0]:g} s", allowed, [spent], Target(1), note))
    if not options.short:
        spent = _bundle(options)
        allowed = [PICTURE_SECONDS * options.films / PICTURES]
        note = f"{spent:.0f} s, {options.films} DICOM films, two workers, predicting and the page included"
        rows.append(ratio_row("bundle of the hip cascade", f"{allowed[0]:g} s", allowed, [spent], Target(1), note))
    return Section(f"Whole audits with the page; one core for the table, two threads for {films} films.", rows)


def _bundle(options: Options) -> float:
    """Seconds for the whole audit of a hip bundle on simulated films: predicting, reading, embedding, page."""
    from bench.models import bundle, films
    from domainseg.probes.audit import run

    folder, _ = bundle(options)
    home = films(options)[0].parents[1]
    tables = {"path": str(home / "images.csv"), "targets": str(home / "targets.csv")}
    data = {"_target_": "domainseg.data.sources.manifest.load", **tables}
    settings = {**SETTINGS, "bundle": folder, "data": data, "split": "all", "workers": 2}
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        run(settings, options.scratch / "audited")
    return time.perf_counter() - start


def _pictures(scratch: Path, n: int) -> float:
    """Seconds for reading n films (700 x 700 PNG) and probing one attribute."""
    import cv2

    from domainseg.files import write_bytes
    from domainseg.probes.detectable import detection
    from domainseg.probes.pictures import features_of

    rng = np.random.default_rng(0)
    files = []
    for k in range(n):
        pixels = cv2.GaussianBlur(rng.integers(0, 255, (700, 700), dtype=np.uint8), (0, 0), 1 + k % 2)
        path = scratch / f"film-{k}.png"
        write_bytes(path, cv2.imencode(".png", pixels)[1].tobytes())
        files.append((str(k), path))
    start = time.perf_counter()
    found, _ = features_of(files)
    order = np.arange(n)
    detection(np.stack([found[str(k)] for k in order]), (order % 2).astype(np.intp), order.astype(np.intp), 2)
    return time.perf_counter() - start
