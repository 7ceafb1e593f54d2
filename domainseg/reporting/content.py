"""What a report is made of: the pieces of a run folder, each optional, and what is missing said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from domainseg.evaluation import Metric, read_table
from domainseg.evaluation.metrics import Metrics
from domainseg.evaluation.tables import TARGETS
from domainseg.files import read_json
from domainseg.reporting.words import PICTURES, Nouns, nouns

MOST_PICTURES = 32


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery: a PNG or JPEG file, its caption, and the heading that it stands under."""

    path: Path
    caption: str = ""
    group: str = ""


@dataclass
class Content:
    """The pieces of a report. ``metrics`` is as in metrics.json; ``table`` is the prediction table.

    lesions: the lesion table of volumes.
    thresholds: one dict a stage (stage, value, rule, chosen_on, n_positive, kept, specificity, reached, provisional).
    curves: stage -> table with a column step. comparisons: as ``evaluation.compare`` gives them, each with a title.
    missing: pieces that were not there, in words. maps: the page of films and maps beside the report, "" without one.
    """

    name: str
    metrics: Metrics
    table: pd.DataFrame | None = None
    lesions: pd.DataFrame | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    config_text: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    thresholds: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    contact_sheet: Path | None = None
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    maps: str = ""

    @property
    def split(self) -> str:
        """The split that is reported: test, or else the last one there is."""
        return "test" if "test" in self.metrics or not self.metrics else list(self.metrics)[-1]

    @property
    def results(self) -> dict[str, Any]:
        """target -> metrics of the reported split."""
        return dict(self.metrics.get(self.split, {}))

    @property
    def main(self) -> str | None:
        """The target that it is for: the configuration's; without one fracture, hemorrhage, pneumonia or the last."""
        targets = [name for name in self.results if name not in ("location", "findings")]
        known = [name for name in (self.config.get("target"), "fracture", "hemorrhage", "pneumonia") if name in targets]
        return (known or targets[-1:] or [None])[0]

    @property
    def nouns(self) -> Nouns:
        """What the cases are called."""
        return nouns(self.main)


def gather(run: Path) -> Content:
    """Read the pieces of a run folder.

    config.yaml, environment.json, metrics.json, predictions.parquet (or .csv), comparisons.json (a list of
    comparisons with titles), lesions.parquet (or .csv), stages/<name>/threshold.json and *.csv, the curves (both in
    folds/<k>/ too), pictures/*.png with pictures/captions.json (file name -> caption, or -> {caption, group}, in
    its order; found_1.png and its like go under their own headings), pictures/contact_sheet.png. What is absent is
    skipped and listed in ``missing``.
    """
    content = Content(name=run.resolve().name, metrics={})
    for name, piece in (("metrics.json", "metrics"), ("environment.json", "environment")):
        if (run / name).is_file():
            setattr(content, piece, read_json(run / name))
        else:
            content.missing.append(name)
    if (run / "config.yaml").is_file():
        content.config_text = (run / "config.yaml").read_text()
        content.config = yaml.safe_load(content.config_text) or {}
    else:
        content.missing.append("config.yaml")
    tables = [path for path in (run / "predictions.parquet", run / "predictions.csv") if path.is_file()]
    if tables:
        content.table = read_table(tables[0])
    else:
        content.missing.append("predictions.parquet")
    content.lesions = read_lesions(run)
    order = content.config.get("stages") or TARGETS
    content.thresholds = [{"stage": stage, **read_json(path)} for stage, path in _stages(run, "threshold.json", order)]
    content.curves = _curves(run, order)
    if (run / "comparisons.json").is_file():
        content.comparisons = list(read_json(run / "comparisons.json"))
    content.pictures, content.contact_sheet = _pictures(run / "pictures")
    content.maps = "maps.html" if (run / "maps.html").is_file() else ""
    for piece, there in (
        ("stages/*/threshold.json", content.thresholds),
        ("stages/*/*.csv", content.curves),
        ("pictures/*.png", content.pictures),
    ):
        if not there:
            content.missing.append(piece)
    return content


def read_lesions(folder: Path) -> pd.DataFrame | None:
    """The lesion table in a folder, lesions.parquet or .csv; None where there is none."""
    tables = [path for path in (folder / "lesions.parquet", folder / "lesions.csv") if path.is_file()]
    return read_table(tables[0]) if tables else None


def _stages(run: Path, name: str, stages: Sequence[str]) -> list[tuple[str, Path]]:
    """(stage, or "fold k, stage"; path) of a file in every stage's folder, in the order of the cascade."""
    found = [(path.parent.name, path) for path in run.glob(f"stages/*/{name}")]
    for path in run.glob(f"folds/*/stages/*/{name}"):
        found.append((f"fold {path.parents[2].name}, {path.parent.name}", path))
    order = {stage: place for place, stage in enumerate(stages)}
    return sorted(found, key=lambda item: (str(item[1].parents[2]), order.get(item[1].parent.name, 99), item[0]))


def _curves(run: Path, stages: Sequence[str]) -> dict[str, pd.DataFrame]:
    read = {}
    for stage, path in _stages(run, "*.csv", stages):
        if path.stat().st_size:
            read[stage if path.stem in ("curves", "fit") else f"{stage}, {path.stem}"] = pd.read_csv(path)
    return {stage: curves for stage, curves in read.items() if len(curves)}


def _pictures(folder: Path) -> tuple[list[Picture], Path | None]:
    sheet = folder / "contact_sheet.png"
    named = read_json(folder / "captions.json") if (folder / "captions.json").is_file() else {}
    pictures = []
    for name, said in named.items():
        said = said if isinstance(said, Mapping) else {"caption": said}
        if (folder / name).is_file() and name != sheet.name:
            kind = PICTURES.get(Path(name).stem.rsplit("_", 1)[0], "")
            pictures.append(Picture(folder / name, str(said.get("caption", "")), str(said.get("group", kind))))
    for path in sorted(folder.glob("*.png")):
        if path.name not in named and path != sheet:
            pictures.append(Picture(path, path.stem.replace("_", " ")))
    return pictures[:MOST_PICTURES], sheet if sheet.is_file() else None


def record(results: Mapping[str, Any], *path: str) -> Metric | None:
    """The metric at a path of keys, None where there is none."""
    node: Any = results
    for key in path:
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node if isinstance(node, Mapping) and "value" in node else None  # type: ignore[return-value]
