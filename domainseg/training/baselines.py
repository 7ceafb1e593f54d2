"""What a cascade has to beat on the same films: one network on the whole film, and the film's layout alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.reads import FILMS
from domainseg.data.manifest import Manifest
from domainseg.evaluation.compare import compare
from domainseg.files import read_json, write_json
from domainseg.imaging import ImageReadError
from domainseg.tasks import ranks
from domainseg.tasks.checkpoints import remove_checkpoints
from domainseg.tasks.fit import FitContext
from domainseg.training.builder import Builder
from domainseg.training.hips import Hips
from domainseg.training.samples import Films, Sampler
from domainseg.training.stages import (
    RECORD,
    RunError,
    is_finished,
    load_stage,
    load_weights,
    module_of,
    new_stage,
    reading_in,
    save_stage,
)

log = logging.getLogger(__name__)


def score_baselines(
    cfg: Mapping[str, Any],
    manifest: Manifest,
    films: pd.DataFrame,
    builder: Builder,
    folder: Path,
) -> pd.DataFrame:
    """``films`` (one row a film) with a column score_<baseline> for each baseline of the configuration.

    They learn from the films that the builder's last stage learned from: 1 if one of the hips is fractured, else 0.
    A baseline with ``columns`` is a logistic regression on these columns of the images table, a baseline with a
    ``network`` is that network on the whole film.
    """
    assert isinstance(builder.lessons, Hips)  # see check_baselines
    films, labels = films.copy(), builder.lessons.film_labels()
    for name, settings in cfg["baselines"].items():
        if "columns" in settings:
            scores = _layout(manifest, labels, list(films["image"]), list(settings["columns"]))
        else:
            start = None if cfg["init_from"] is None else Path(cfg["init_from"]) / "baselines" / name
            scores = _whole_film(
                name,
                settings,
                manifest,
                labels,
                list(films["image"]),
                builder.lessons.sampler(),
                builder.context(folder / "baselines" / name),
                start,
            )
        films[f"score_{name}"] = films["image"].map(scores)
    return films


def write_comparisons(cfg: Mapping[str, Any], films: pd.DataFrame, output: Path) -> None:
    """comparisons.json: the cascade against each baseline, per eligible test film, paired; on intention.

    A film is eligible when one of its hips is; where hips get their label from the ROI that a lesion meets, a fractured
    film whose ROI missed it is in the cascade's coverage and not here.
    """
    target = cfg["target"]
    test = films[(films["split"] == "test") & (films[f"eligible_{target}"] == 1)]
    found = []
    cascade = _seconds(output, "stages/*")
    for name, settings in cfg["baselines"].items():
        result = compare(test, f"score_{target}", f"score_{name}", f"label_{target}", intention=True)
        title = f"The cascade's highest hip (a) against {settings['title']} (b), per film"
        if "network" in settings:
            title += f"; fitted in {cascade} s and {_seconds(output, f'baselines/{name}')} s"
            if cfg["init_from"] is not None and not (Path(cfg["init_from"]) / "baselines" / name).is_dir():
                title += "; a began from another run, b did not"
        found.append({"title": title, **result})
    write_json(output / "comparisons.json", found)


def check_baselines(cfg: Mapping[str, Any], manifest: Manifest) -> None:
    """Raise RunError, before anything is trained, for baselines that cannot be had, and columns that are not there."""
    if cfg["baselines"] and reading_in(cfg) is not FILMS:
        raise RunError(f"baselines: there are none for {cfg['pipeline']}, only for pipelines that cut films into hips")
    for name, settings in cfg["baselines"].items():
        if absent := [column for column in settings.get("columns", ()) if column not in manifest.images]:
            raise RunError(f"baselines.{name}.columns: the images table has no column {', '.join(absent)}")


def _seconds(output: Path, stages: str) -> int:
    """Seconds that fitting took, samples and tuning included, over all folds."""
    records = [*output.glob(f"{stages}/{RECORD}"), *output.glob(f"folds/*/{stages}/{RECORD}")]
    return sum(int(read_json(path).get("seconds", 0)) for path in records)


def _layout(
    manifest: Manifest, labels: Mapping[str, int], images: Sequence[str], columns: Sequence[str]
) -> dict[str, float]:
    table = manifest.images.set_index("image")[list(columns)].astype(str)
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression(C=1.0, max_iter=1000))
    known = list(labels)
    if len(set(labels.values())) < 2:
        return dict.fromkeys(images, 0.5)
    model.fit(table.loc[known].to_numpy(), [labels[image] for image in known])
    return dict(zip(images, model.predict_proba(table.loc[list(images)].to_numpy())[:, 1], strict=True))


def _whole_film(
    name: str,
    settings: Mapping[str, Any],
    manifest: Manifest,
    labels: Mapping[str, int],
    images: Sequence[str],
    sampler: Sampler,
    context: FitContext,
    start: Path | None,
) -> dict[str, float]:
    if ranks.first(lambda: is_finished(context.folder)):
        stage = load_stage(context.folder, context.accelerator)
        if ranks.is_first():
            remove_checkpoints(context.folder)
    else:
        started = time.monotonic()
        stage = new_stage(name, settings, context.accelerator, context.seed)
        if start is not None and is_finished(start):
            load_weights(stage, start)
        items = []
        for image, film in sampler.films.each(f"{name}: samples", list(labels)):
            if not isinstance(film, ImageReadError):
                items.append(sampler.item(Case.of(image, film), stage, {"label": labels[image]}))
        items = sampler.all_of(items)
        instantiate({**settings["task"], "_partial_": True}, _convert_="all")(module_of(stage), items, context)
        seconds = round(time.monotonic() - started)
        if ranks.is_first():
            save_stage(stage, settings, context.folder, samples=len(items), seconds=seconds)
            remove_checkpoints(context.folder)
        log.info("baseline %s: %d s", name, seconds)
    scores: dict[str, float] = {}
    for image, film in Films(manifest).each(f"{name}: predicting", images):
        if not isinstance(film, ImageReadError):
            (case,) = Cascade([stage]).run(Case.of(image, film))
            scores[image] = float(case.values[f"score_{stage.decision.target}"])
    return {image: score for part in ranks.gather(scores) for image, score in part.items()}
