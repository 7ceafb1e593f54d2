"""The evaluate command: a prediction table in, metrics.json, figures and a report out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from domainseg.evaluation import EvaluationError, evaluate, read_table
from domainseg.evaluation.detail import Settings, detail
from domainseg.evaluation.intervals import RESAMPLES
from domainseg.evaluation.metrics import Metrics
from domainseg.evaluation.retest import read_retest
from domainseg.evaluation.tables import numbers, repaired, targets_of, texts
from domainseg.files import atomic_path, read_json, write_json
from domainseg.reporting import report, sections
from domainseg.reporting.content import Content, gather, read_lesions
from domainseg.reporting.page import write_page
from domainseg.reporting.retest import retest_page


def evaluate_command(cfg: dict[str, Any], output: Path) -> Metrics:
    """Evaluate a prediction table, write metrics.json, figures/*.svg and report.html to ``output``; returns metrics.

    A lesion table beside it (lesions.parquet or .csv) is read as well.

    cfg: predictions (path of .parquet or .csv); optional readers (a table's path), columns (our name -> the file's),
    targets, target, resamples, seed, and what ``Settings`` names. Slips in the table are put right and told of.
    Raises EvaluationError for a table that can't be read, is empty, lacks needed columns or contradicts itself.
    """
    if not cfg["predictions"]:
        raise EvaluationError("nothing to evaluate: name a prediction table (predictions=FILE) or retest=FILE")
    path = Path(cfg["predictions"])
    table, notes = repaired(
        read_table(path, cfg.get("columns")),
        unscored="they count as wrong on intention and are left out of what is judged on scored cases only",
    )
    notes += _overrides(path)
    lesions = read_lesions(path.parent)
    if table.empty:
        raise EvaluationError(f"{path}: has no rows, so there is nothing to evaluate")
    reads = read_table(cfg["readers"]) if cfg.get("readers") else None
    settings, chosen = _settings(cfg), targets_of(table, cfg.get("targets"))
    if cfg.get("target") and cfg["target"] not in chosen:
        raise EvaluationError(f"target={cfg['target']}: the table's targets are {', '.join(chosen)}")
    sites = set(texts(table, "site")) - {None}
    if settings.reference is not None and settings.reference not in sites:
        known = ", ".join(sorted(sites)) or "none"
        raise EvaluationError(f"reference={settings.reference}: no such site; the table has {known}")
    if not any(np.isfinite(numbers(table, f"score_{target}")).any() for target in chosen):
        raise EvaluationError(f"{path}: no row has a score of {', '.join(chosen)}; was the right column mapped?")
    metrics = evaluate(table, cfg.get("targets"), resamples=settings.resamples, seed=settings.seed, lesions=lesions)
    config = {"predictions": path.name, "target": cfg.get("target")}
    content = Content(name=path.stem, metrics=metrics, table=table, lesions=lesions, config=config, notes=notes)
    _look_into(content, settings, reads)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "metrics.json", metrics)
    for name, svg in report.draw(content).items():
        with atomic_path(output / "figures" / f"{name}.svg") as temporary:
            temporary.write_text(svg)
    report.write(content, output / "report.html")
    for note in notes:
        Console(stderr=True).print(f"note: {note}", highlight=False, soft_wrap=True)
    print_key_figures(content)
    return metrics


def _overrides(path: Path) -> list[str]:
    """Of a table that predict has written: the thresholds of the bundle that were set anew on local cases."""
    made_of = path.with_name("predictions.json")
    made = read_json(made_of).get("overrides", []) if path.stem == "predictions" and made_of.is_file() else []
    return [f"Threshold of the bundle set anew on local cases: {line}." for line in made]


def _settings(cfg: Mapping[str, Any]) -> Settings:
    known = {field.name: cfg[field.name] for field in fields(Settings) if cfg.get(field.name) is not None}
    if isinstance(known.get("prior"), str):
        known["prior"] = [known["prior"]]
    for name in ("sensitivity", "specificity", "prevalence"):
        if name in known and not 0 < float(known[name]) < 1:
            raise EvaluationError(f"{name}={known[name]}: is no fraction between 0 and 1")
    return Settings(**known)


def _look_into(content: Content, settings: Settings, reads: pd.DataFrame | None = None) -> None:
    """Add what only the main target of the reported split has to its metrics."""
    main, table = content.main, content.table
    if main is None or table is None or not {f"label_{main}", f"score_{main}"} <= set(table.columns):
        return
    metrics = content.metrics[content.split][main]
    metrics.update(detail(table, main, content.split, metrics, settings, reads))
    if content.notes:
        metrics["notes"] = list(content.notes)


def evaluate_run(run: Path, *, resamples: int = RESAMPLES, seed: int = 0) -> Metrics:
    """Evaluate run/predictions.parquet (or .csv), write run/metrics.json and run/report.html; returns the metrics.

    With run/lesions.parquet (or .csv), where volumes were read.

    Raises EvaluationError as ``evaluate_command`` does.
    """
    path = run / "predictions.parquet"
    table = read_table(path if path.is_file() else path.with_suffix(".csv"))
    metrics = evaluate(table, resamples=resamples, seed=seed, lesions=read_lesions(run))
    content = gather(run)
    content.metrics, content.table = metrics, table
    content.missing = [name for name in content.missing if name != "metrics.json"]
    _look_into(content, Settings(resamples=resamples, seed=seed))
    write_json(run / "metrics.json", metrics)
    content.metrics = read_json(run / "metrics.json")  # as a later report will see them
    report.write(content, run / "report.html")
    print_key_figures(content)
    return metrics


def retest_command(cfg: dict[str, Any], output: Path) -> dict[str, Any]:
    """The table of Recht et al. from a CSV of models: writes retest.json and retest.html; returns the former.

    cfg: retest (path), optional target and columns. Raises EvaluationError as ``read_retest`` does.
    """
    path = Path(cfg["retest"])
    found = read_retest(path, cfg.get("target"), cfg.get("columns"))
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "retest.json", found)
    page = retest_page(path.stem, found)
    write_page(page, output / "retest.html")
    shown = Table(title=page.title, title_justify="left", box=None)
    table = page.sections[0].tables[0]
    kept = (0, 1, 2, 3, 6)  # ranks themselves are on the page: a terminal is narrow
    for k in kept:
        shown.add_column(table.heads[k], no_wrap=k > 0)
    for row in table.rows:
        shown.add_row(*(row[k].replace(" to ", "–") for k in kept))
    console = Console()
    console.print(shown)
    for sentence in page.brief:
        console.print(sentence)
    return found


def print_key_figures(content: Content, console: Console | None = None) -> None:
    """Print the key figures with their intervals as a table."""
    shown = Table(title=f"{content.name}: {content.split} split, 95 % intervals", title_justify="left", box=None)
    shown.add_column("")
    for heading in ("on intention", "scored only"):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("n", justify="right")
    shown.add_column("patients", justify="right")
    for block in sections.key_figures(content):
        shown.add_row(f"[bold]{block['title']}[/bold]")
        for row in block["rows"]:
            cells = [row[key].replace(" to ", "–") for key in ("intention", "conditional")]
            shown.add_row(f"  {row['name']}", *cells, str(row["n"]), str(row["patients"]))
    (console or Console()).print(shown)
