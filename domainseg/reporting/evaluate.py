"""The evaluate command: a prediction table in, metrics.json, figures and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from domainseg.evaluation import EvaluationError, evaluate, read_table
from domainseg.evaluation.intervals import RESAMPLES
from domainseg.evaluation.metrics import Metrics
from domainseg.files import atomic_path, write_json
from domainseg.reporting import report, sections
from domainseg.reporting.content import Content, gather, read_lesions


def evaluate_command(cfg: dict[str, Any], output: Path) -> Metrics:
    """Evaluate a prediction table, write metrics.json, figures/*.svg and report.html to ``output``; returns metrics.

    A lesion table beside it (lesions.parquet or .csv) is read as well.

    cfg: predictions (path of .parquet or .csv); optional columns (our name -> the file's), targets, resamples, seed.
    Raises EvaluationError for a table that can't be read, is empty or lacks needed columns.
    """
    path = Path(cfg["predictions"])
    table = read_table(path, cfg.get("columns"))
    lesions = read_lesions(path.parent)
    if table.empty:
        raise EvaluationError(f"{path}: has no rows, so there is nothing to evaluate")
    metrics = evaluate(
        table,
        cfg.get("targets"),
        resamples=int(cfg.get("resamples", RESAMPLES)),
        seed=int(cfg.get("seed", 0)),
        lesions=lesions,
    )
    content = Content(name=path.stem, metrics=metrics, table=table, lesions=lesions, config={"predictions": path.name})
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "metrics.json", metrics)
    for name, svg in report.draw(content).items():
        with atomic_path(output / "figures" / f"{name}.svg") as temporary:
            temporary.write_text(svg)
    report.write(content, output / "report.html")
    print_key_figures(content)
    return metrics


def evaluate_run(run: Path, *, resamples: int = RESAMPLES, seed: int = 0) -> Metrics:
    """Evaluate run/predictions.parquet (or .csv), write run/metrics.json and run/report.html; returns the metrics.

    With run/lesions.parquet (or .csv), where volumes were read.

    Raises EvaluationError as ``evaluate_command`` does.
    """
    path = run / "predictions.parquet"
    table = read_table(path if path.is_file() else path.with_suffix(".csv"))
    metrics = evaluate(table, resamples=resamples, seed=seed, lesions=read_lesions(run))
    write_json(run / "metrics.json", metrics)
    content = gather(run)
    report.write(content, run / "report.html")
    print_key_figures(content)
    return metrics


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
