"""The demonstration: how whole-film models, ROI models and the cascade fare when site and fracture go together.

  python -m domainseg.audit +probe=caveats_short run=RUN output=DIR
  python -m domainseg.audit +probe=caveats output=DIR

Simulated pelvis films of three sites; at site A fractures are ten times as frequent as elsewhere. What gives the site
away lies outside the ROI, inside it, or both. Each model is tested where site and label go together as in training,
where they do not, and where the relation is turned round, on the same patients, filmed at every site.

Each cell (place and model) is written to cells/ when it is done. A run that was stopped goes on with what is missing:
resume=true output=DIR. Without run= the filters and the localizer are trained first, on films without confounder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from domainseg.cascade.stages import Stage
from domainseg.data.manifest import Manifest
from domainseg.evaluation.tables import clusters_of, numbers, texts
from domainseg.files import atomic_path, read_json, write_json
from domainseg.phantom.settings import Settings
from domainseg.probes.caveats_checks import check
from domainseg.probes.caveats_films import PLACES, learning, photographed, relations
from domainseg.probes.caveats_measures import falls, measure, on_intention, row_weights, site_alone
from domainseg.probes.caveats_models import Model, prepare_filters, score_films, train_network
from domainseg.probes.caveats_page import gallery, main_table, page_of
from domainseg.probes.common import ProbeError, write_results
from domainseg.reporting.page import write_page
from domainseg.training.environment import processor

log = logging.getLogger(__name__)


def run(
    cfg: dict[str, Any],
    output: Path,
    *,
    models: Mapping[str, Mapping[str, Any]],
    chosen: Sequence[str] | None,
    places: Sequence[str],
    films: Mapping[str, Any],
    seeds: int,
    draws: int,
    severe_seeds: int,
) -> dict[str, Any]:
    """Write cells/, caveats.json and caveats.html; returns what caveats.json holds.

    The settings are described in conf/probe/caveats.yaml. Raises ProbeError for a model or place that nobody knows, and
    what simulating and training raise.
    """
    known = {name: Model(**settings) for name, settings in models.items() if settings is not None}
    names = list(known if chosen is None else chosen)
    for key, asked, allowed in (("chosen", names, known), ("places", places, PLACES)):
        if unknown := [name for name in asked if name not in allowed]:
            raise ProbeError(f"probe.{key}: nobody knows {unknown[0]!r}; known are {', '.join(allowed)}")
    if cfg["trainer"]["threads"]:
        torch.set_num_threads(int(cfg["trainer"]["threads"]))
    demonstration = Demonstration(cfg, output, known, films)
    cells: list[dict[str, Any]] = []
    for place in places:
        for number in range(seeds):
            for name in names:
                cells.append(demonstration.cell(place, name, int(cfg["seed"]) + number))
                demonstration.write(cells)
    checks = check(cfg, output, known["labels"], films, draws, severe_seeds) if draws or severe_seeds else None
    return demonstration.write(cells, checks, last=True)


class Demonstration:
    """Trains and tests the cells of one output folder; what is finished there is taken up."""

    def __init__(
        self, cfg: Mapping[str, Any], output: Path, models: Mapping[str, Model], films: Mapping[str, Any]
    ) -> None:
        self.cfg, self.output, self.models, self.films = cfg, output, models, films
        data = {**cfg["data"], **films["settings"], "confounder": "severe", "confounder_by": "site"}
        self.relations = relations(Settings.of({key: data[key] for key in Settings().plain()}))
        self.bootstrap = int(cfg["resamples"]), int(cfg["seed"])
        self._filters: list[Stage] | None = None
        self._learning: tuple[tuple[str, int], Manifest] | None = None
        self._test: tuple[str, dict[str, Manifest]] | None = None

    def cell(self, place: str, name: str, seed: int) -> dict[str, Any]:
        """One cell of the table: what was found before, or the model trained, tested and measured."""
        file = self.output / "cells" / f"{place}-{name}-{seed}.json"
        if file.is_file():
            log.info("%s: finished before", file.stem)
            cell: dict[str, Any] = read_json(file)
        else:
            log.info("%s", file.stem)
            cell = {"place": place, "model": name, "title": self.models[name].title, "seed": seed}
            cell |= self.score(place, name, seed, file.with_suffix(".parquet"))
        table = pd.read_parquet(file.with_suffix(".parquet"))
        cell |= measure(table, self.relations, *self.bootstrap)
        write_json(file, cell)
        return cell

    def score(self, place: str, name: str, seed: int, file: Path) -> dict[str, Any]:
        """Train a cell's model, write the scores of the test patients to ``file``; how many they are, and the time."""
        started = time.monotonic()
        model = self.models[name]
        network = self.network(place, name if model.trained is None else model.trained, seed)
        trained = time.monotonic()
        parts = []
        for site, manifest in self.test(place).items():
            scored = score_films(model, network, self.before(model), manifest, f"{file.stem}: films at site {site}")
            parts.append(scored.assign(split="test"))
        table = pd.concat(parts, ignore_index=True)
        with atomic_path(file) as temporary:
            table.to_parquet(temporary, index=False)
        return {
            "films": len(parts[0]),
            "fractured": int((parts[0]["label_fracture"] == 1).sum()),
            "patients": int(parts[0]["group"].nunique()),
            "seconds": {"training": round(trained - started), "all": round(time.monotonic() - started)},
            "hardware": {
                "processor": processor(),
                "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if self.cfg["trainer"]["accelerator"] == "gpu" else None,
            },
        }

    def network(self, place: str, name: str, seed: int) -> Stage:
        """The network of a model that trains its own."""
        key = (place, seed)
        if self._learning is None or self._learning[0] != key:
            self._learning = (key, learning(self.cfg, self.films, place, "severe", seed))
        folder = self.output / "networks" / f"{place}-{name}-{seed}"
        return train_network(
            self.cfg, self.models[name], self._learning[1], self.before(self.models[name]), folder, seed
        )

    def test(self, place: str) -> dict[str, Manifest]:
        """The test patients of a place, by site."""
        if self._test is None or self._test[0] != place:
            self._test = (place, photographed(self.cfg, self.films, place))
        return self._test[1]

    def before(self, model: Model) -> list[Stage]:
        """View filter, localizer and implant filter, for a model that needs them."""
        if model.frame == "whole":
            return []
        if self._filters is None:
            self._filters = prepare_filters(self.cfg, self.output / "filters")
        return self._filters

    def write(
        self, cells: Sequence[Mapping[str, Any]], checks: Mapping[str, Any] | None = None, *, last: bool = False
    ) -> dict[str, Any]:
        """Write caveats.json and caveats.html from the cells that there are; ``last`` also prints the table."""
        record = {
            "cells": list(cells),
            "pairs": self.pairs(cells),
            "site_alone": site_alone(self.relations),
            "checks": checks,
            "films": dict(self.films),
            "seed": self.cfg["seed"],
            "resamples": self.cfg["resamples"],
        }
        if last:
            shown = gallery({place: self.test(place) for place in dict.fromkeys(cell["place"] for cell in cells)})
            write_results(self.output, "caveats", record, page_of(record, list(shown)), main_table(record))
        else:
            write_json(self.output / "caveats.json", record)
            write_page(page_of(record), self.output / "caveats.html")
        return record

    def pairs(self, cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The cascade's AUC minus that of every other model of its place and seed, in each test."""
        found = []
        for cascade in (cell for cell in cells if cell["model"] == "cascade"):
            for cell in cells:
                if cell["place"] != cascade["place"] or cell["seed"] != cascade["seed"] or cell is cascade:
                    continue
                one, two = (self._scores(which) for which in (cell, cascade))
                label, site, people = numbers(one, "label_fracture"), texts(one, "site").astype(str), clusters_of(one)
                auc = {}
                for test, relation in self.relations.items():
                    weights = row_weights(label, site, relation)
                    a, b = ((on_intention(table), weights) for table in (one, two))
                    auc[test] = falls(label, a, b, people, *self.bootstrap)
                found.append({**{key: cell[key] for key in ("place", "model", "title", "seed")}, "auc": auc})
        return found

    def _scores(self, cell: Mapping[str, Any]) -> pd.DataFrame:
        """The scores behind a cell, in the order that all cells of its place have."""
        name = f"{cell['place']}-{cell['model']}-{cell['seed']}"
        return pd.read_parquet(self.output / "cells" / f"{name}.parquet").sort_values(["site", "image"])
