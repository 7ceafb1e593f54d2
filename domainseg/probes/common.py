"""What the probes share: a table or films in, which rows are judged, and numbers, page and short table out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.bundle.kinds import MADE_OF, RUN
from domainseg.data.manifest import Manifest
from domainseg.data.splits import DIVIDING, divided, in_cohort
from domainseg.evaluation.tables import Rows, read_table, repaired, rows_of, targets_of, texts
from domainseg.files import DomainsegError, write_json
from domainseg.reporting.page import Page, Table, write_page

log = logging.getLogger(__name__)

MAIN = ("fracture", "hemorrhage")  # what a cascade is for
WIDEST = 160  # letters of a line that a table may take
LISTED = 20  # columns that an error names
_UNSCORED = "where stages exclude cases they count as wrong, else they are left out"  # by ``judged``
FEW = 10  # cases of a class with fewer of which no verdict is given (our choice)


class ProbeError(DomainsegError):
    """A probe that cannot be run on what it was given; the message says what is missing and what to do."""


def read_predictions(cfg: Mapping[str, Any], *by: str) -> tuple[pd.DataFrame, list[str]]:
    """The table of ``predictions=`` with our column names, slips repaired, and a sentence for each repair or finding.

    by: columns that tell several models of one long table apart: a case may stand there once for each of them.
    Raises EvaluationError for a table that cannot be read or contradicts itself, ProbeError for absent columns.
    """
    if not cfg["predictions"]:
        raise ProbeError("predictions=FILE is needed: a table with image, label_<target>, score_<target>")
    table = read_table(cfg["predictions"], cfg["columns"])
    need_columns(table, *by)
    if not by:
        return repaired(table, _UNSCORED)
    told = [
        " / ".join(name or "" for name in names) for names in zip(*(texts(table, name) for name in by), strict=True)
    ]
    if "" in (names := set(told)) or not names:
        raise ProbeError(
            f"{', '.join(by)}: empty in {told.count('')} of {len(told)} rows; say for each row what it is of"
        )
    # A fold tells repeated cases apart, as a model does: it carries the model's name while slips are put right.
    folds = [f"{model} {fold}" for model, fold in zip(told, texts(table, "fold"), strict=True)]
    mended, said = repaired(table.assign(fold=folds), _UNSCORED)
    mended = mended.drop(columns="fold")
    return (mended.assign(fold=table.loc[mended.index, "fold"]) if "fold" in table else mended), said


def need_columns(table: pd.DataFrame, *names: str) -> None:
    """Raise ProbeError that names the columns which a table lacks."""
    if absent := [name for name in names if name not in table.columns]:
        there = [str(name) for name in table.columns]
        more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
        raise ProbeError(
            f"the table lacks {', '.join(absent)}; it has {', '.join(there[:LISTED])}{more}. "
            f"Name your own with 'columns={{{absent[0]}: YOUR_COLUMN}}'"
        )


def target_of(cfg: Mapping[str, Any], table: pd.DataFrame) -> str:
    """The target to judge: ``target=``, else the only one, else a cascade's main one. Raises ProbeError."""
    if (asked := cfg["target"]) is not None:
        if isinstance(asked, list):
            raise ProbeError(f"target={asked}: this probe judges one target at a time")
        return targets_of(table, [asked])[0]
    found = targets_of(table)
    main = found if len(found) == 1 else [name for name in MAIN if name in found]
    if not main:
        raise ProbeError(f"target=NAME is needed: the table has {', '.join(found)}")
    return main[0]


def judged(table: pd.DataFrame, target: str) -> Rows:
    """The rows on which a probe judges a target: those of the test split with a known label.

    Where stages have excluded cases (excluded_by), on intention: an excluded positive scores -inf, an excluded negative
    +inf. In tables from elsewhere a case without a score is left out.
    """
    if "split" in table:
        split = texts(table, "split")
        table = table[np.array([name in (None, "test") for name in split], dtype=bool)]
    rows = rows_of(table, target)
    return rows.judged() if any(rows.excluded_by) else rows.take(rows.scored)


def sites_of(table: pd.DataFrame) -> NDArray[Any]:
    """The site of each row [n]. Raises ProbeError where one is unknown: its cases would stand nowhere."""
    need_columns(table, "site")
    sites = texts(table, "site")
    if unknown := sum(site is None for site in sites):
        raise ProbeError(f"site is empty in {unknown} of {len(sites)} rows: fill it, or leave these rows out")
    return sites


def all_films(cfg: Mapping[str, Any]) -> Manifest:
    """The films of ``data=``, divided only where the images table does so itself. Raises ProbeError without any."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    if not cfg.get("data"):
        raise ProbeError("films are needed: data=manifest data.path=films.csv, or another data source")
    try:
        manifest: Manifest = instantiate({k: v for k, v in cfg["data"].items() if k not in DIVIDING}, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, DomainsegError):
            raise error.__cause__ from None
        raise
    return manifest


def films_in_cohort(cfg: Mapping[str, Any]) -> Manifest:
    """The films of ``data=`` that are in data.cohort, all where none is given. Raises ProbeError."""
    films = all_films(cfg)
    return films.where(in_cohort(films.images, cfg["data"].get("cohort")))


def load_films(cfg: Mapping[str, Any]) -> Manifest:
    """The films of ``data=``, divided as training on them would divide them. Raises ProbeError, ManifestError."""
    return as_training_divides(cfg, all_films(cfg))


def as_training_divides(cfg: Mapping[str, Any], films: Manifest) -> Manifest:
    """Films with the splits that training would give them. Raises ProbeError, ManifestError."""
    if cfg["data"].get("folds"):
        raise ProbeError("data.folds: probes need one division of the films; leave it out")
    return divided(films, cfg["data"], int(cfg["seed"]))


def check_output(output: Path) -> None:
    """Raise ProbeError where a table of predictions that is written to ``output`` would replace another command's."""
    for name, what in ((RUN, "a run"), (MADE_OF, "a finished prediction")):
        if (output / name).exists():
            raise ProbeError(f"output={output}: holds {what}, whose table is not replaced; name another folder")


def given_split(cfg: Mapping[str, Any]) -> bool:
    """Whether the images table itself says who is trained on and who is tested."""
    return bool((all_films(cfg).images["split"] != "").any())


def both_classes(rows: Rows) -> bool:
    """Whether there are positives and negatives."""
    return bool((rows.label == 1).any() and (rows.label == 0).any())


def enough(rows: Rows) -> bool:
    """Whether each class has FEW cases or more."""
    return min(int((rows.label == side).sum()) for side in (0, 1)) >= FEW


def p_text(p: float) -> str:
    """p as people write it."""
    return "–" if not np.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def write_results(output: Path, name: str, record: Mapping[str, Any], page: Page, shown: Table) -> None:
    """Write <name>.json and <name>.html to ``output`` and print the short table."""
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / f"{name}.json", record)
    write_page(page, output / f"{name}.html")
    show(shown)
    for sentence in page.brief:
        log.info(sentence)
    log.info("report: %s", output / f"{name}.html")


def show(table: Table) -> None:
    """Print a table of a page to the terminal."""
    from rich.console import Console
    from rich.table import Table as Printed

    printed = Printed(title=table.caption, title_justify="left", box=None, pad_edge=False)
    for number, head in enumerate(table.heads):
        printed.add_column(head, justify="right" if number in table.numeric else "left", no_wrap=len(table.heads) < 10)
    for row in table.rows:
        printed.add_row(*(cell.replace(" to ", "–").replace("[", r"\[") for cell in row))
    console = Console()
    console.width = max(console.width, WIDEST)  # a log file takes any width
    console.print(printed)
