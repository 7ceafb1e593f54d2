"""The demonstration's models: one network on a whole film or on ROIs, at 224 or 1024 px; and the cascade.

All of them are the hip pipeline's fracture network. It learns from outlined fractures as the pipeline teaches it
(patches with dense targets, then its tail): from labels alone a network at 1024 px stays at chance for as long as a
demonstration may last. The model named ``labels`` learns as whole-film models mostly do, end to end from one label a
film.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import instantiate

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.stages import LOCATIONS, PARTS, Localizer, Stage
from domainseg.cascade.truth import Truth
from domainseg.data.cache import Cache
from domainseg.data.manifest import Manifest
from domainseg.imaging import ImageReadError
from domainseg.tasks.checkpoints import remove_checkpoints
from domainseg.tasks.fracture import LESION
from domainseg.training.builder import Builder
from domainseg.training.hips import Hips
from domainseg.training.run import fit_cascade, load_data
from domainseg.training.samples import Films, Head, true_heads
from domainseg.training.stages import RunError, is_finished, load_stage, module_of, new_stage, save_stage

log = logging.getLogger(__name__)

FILTERS = ("view_filter", "localizer", "implant_filter")
MULTIPLE = 256  # the fracture network halves its input eight times


@dataclass(frozen=True)
class Model:
    """What a network sees and how it learns: one entry of ``probe.models``.

    title: what tables call it. frame: whole or roi. pixels: side of the film or of the ROI. operations: preprocessing
    after the frame is cut. task: training settings, or None for those of the pipeline's fracture stage. found: whether
    the ROI lies where the cascade finds it, behind its filters, or where the truth says. trained: name of the model
    whose network it takes, or None to train its own.
    """

    title: str
    frame: str
    pixels: int
    operations: Sequence[Mapping[str, Any]]
    task: Mapping[str, Any] | None = None
    found: bool = False
    trained: str | None = None

    @property
    def side(self) -> int:
        """Side of the network's input in pixels: the next one that the network takes, with an empty margin."""
        return -(-self.pixels // MULTIPLE) * MULTIPLE


def prepare_filters(cfg: Mapping[str, Any], folder: Path) -> list[Stage]:
    """View filter, localizer and implant filter: of the run named by ``run=``, or trained in ``folder`` on ``data``."""
    accelerator = str(cfg["trainer"]["accelerator"])
    if cfg["run"] is not None:
        run = Path(cfg["run"])
        if missing := [name for name in FILTERS if not is_finished(run / "stages" / name)]:
            raise RunError(f"run={run}: holds no finished stage {missing[0]}; name a run of +pipeline=hip, or none")
        return [load_stage(run / "stages" / name, accelerator) for name in FILTERS]
    if all(is_finished(folder / "stages" / name) for name in FILTERS):
        return [load_stage(folder / "stages" / name, accelerator) for name in FILTERS]
    log.info("no run=: filters and localizer are trained first")
    data = dict(cfg["data"])
    if data["root"] is not None:  # it holds the other films too, a folder each
        data["root"] = str(Path(data["root"]) / "filters")
    own = {**cfg, "data": data, "stages": list(FILTERS), "output": str(folder)}
    return fit_cascade(own, load_data(own), folder)[1]


def train_network(
    cfg: Mapping[str, Any], model: Model, films: Manifest, filters: Sequence[Stage], folder: Path, seed: int
) -> Stage:
    """The model's network, trained on ``films`` (train, tune), or taken up finished from ``folder``."""
    accelerator = str(cfg["trainer"]["accelerator"])
    if is_finished(folder):
        return load_stage(folder, accelerator)
    started = time.monotonic()
    own = {**cfg, "seed": seed, "output": str(folder), "init_from": None, "only": None}
    cache = Cache(Path(cfg["cache"]["folder"]), int(float(cfg["cache"]["max_gb"]) * 1e9))
    builder = Builder(cfg=own, folder=folder, train=films.split("train"), tune=films.split("tune"), cache=cache)
    settings = {
        "network": cfg["stage"]["fracture"]["network"],
        "preprocessing": [{"op": "fit", "size": model.side}, *model.operations],
        "decision": {"_target_": f"domainseg.cascade.stages.{_DECISIONS[model.frame]}"},
    }
    stage = new_stage("fracture", settings, accelerator, seed)
    task = dict(model.task or cfg["stage"]["fracture"]["task"])
    heads: Mapping[tuple[str, str], Sequence[Head]] = {}
    lessons = builder.lessons
    assert isinstance(lessons, Hips)
    if model.frame == "roi":
        heads = lessons.heads(filters[:2], str(cfg["rois"]), 1)
    sampler, items = lessons.sampler(), []
    for image, film in sampler.films.each(f"{folder.name}: samples"):
        if isinstance(film, ImageReadError):
            raise film
        for case in _cases(model, image, film, heads, filters):
            found = _labelled(case, sampler.truth)
            if found is not None:
                items.append(sampler.item(case, stage, *found))
    log.info("%s: %d samples", folder.name, len(items))
    instantiate({**task, "_partial_": True}, _convert_="all")(module_of(stage), items, builder.context(folder))
    save_stage(stage, settings, folder, samples=len(items), seconds=round(time.monotonic() - started))
    remove_checkpoints(folder)
    return stage


_DECISIONS = {"whole": "WholeFilm", "roi": "FractureDetector"}


def score_films(model: Model, stage: Stage, filters: Sequence[Stage], films: Manifest, what: str) -> pd.DataFrame:
    """One row a film: image, patient, group, site, label_fracture, score_fracture (NaN: lost), excluded_by.

    A film's score is that of its highest hip. Scores are not calibrated: they rank films, which is all that is asked.
    """
    truth, rows = Truth(films), []
    heads = true_heads(truth, list(films.images["image"])) if model.frame == "roi" and not model.found else {}
    for image, film in Films(films).each(what):
        if isinstance(film, ImageReadError):
            raise film
        cases: list[Case | Exclusion] = list(_cases(model, image, film, heads, filters))
        if model.found:
            cases = Cascade(filters).run(Case.of(image, film))
        going = [enlarged(case, model) if model.found else case for case in cases if isinstance(case, Case)]
        scores = [result.values["score_fracture"] for case in going for result in _scored(stage, case)]
        stopped = sorted({case.excluded_by for case in cases if isinstance(case, Exclusion)})
        rows.append(
            {
                "image": image,
                "label_fracture": truth.film(image)["label_fracture"],
                "score_fracture": max(scores, default=float("nan")),
                "excluded_by": "" if scores else "+".join(stopped),
            }
        )
    metadata = films.images[["image", "patient", "group", "site", "department", "portable", "age", "sex"]]
    return metadata.merge(pd.DataFrame(rows), on="image", how="right")


def _scored(stage: Stage, case: Case) -> list[Case]:
    return [result for result in Cascade([stage]).run(case) if isinstance(result, Case)]


def _cases(
    model: Model,
    image: str,
    film: Any,
    heads: Mapping[tuple[str, str], Sequence[Head]],
    filters: Sequence[Stage],
) -> Iterator[Case]:
    """The frames of a film that the network sees: the film, or the ROIs at ``heads``."""
    whole = Case.of(image, film)
    if model.frame == "whole":
        yield enlarged(whole, model)
        return
    localizer = next(stage.decision for stage in filters if isinstance(stage.decision, Localizer))
    for part in PARTS:
        for center, diameter in heads.get((image, part), ()):
            yield enlarged(localizer.roi(whole, part, center, diameter), model)


def enlarged(case: Case, model: Model) -> Case:
    """The case with a margin around its frame, so that the frame has ``pixels`` of the network's ``side``."""
    if model.side == model.pixels:
        return case
    height, width = case.shape
    scale = model.side / model.pixels
    wide = (round(height * scale), round(width * scale))
    shift = np.eye(3)
    shift[:2, 2] = (width - wide[1]) / 2, (height - wide[0]) / 2
    return replace(case, affine=case.affine @ shift, shape=wide)


def _labelled(case: Case, truth: Truth) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Truth of a sample for either way to learn, and what outlines its fracture; None where the label is unknown."""
    parts = [case.part] if case.part else [part for part in PARTS if truth.has(case.image, part)]
    rows = [truth.part(case.image, part) for part in parts]
    labels = [truth.label("fracture", case.image, part) for part in parts]
    if not labels or any(np.isnan(labels)):
        return None
    label = int(max(labels))
    places = {row["label_location"] for row, one in zip(rows, labels, strict=True) if one == 1} or {"none"}
    place = places.pop()
    known = LOCATIONS.index(place) if not places and place in LOCATIONS else -1
    outlines = [mask for row, one in zip(rows, labels, strict=True) if one == 1 for mask in row["masks"]]
    return {"fracture": label, "label": label, "location": known}, {LESION: outlines} if outlines else {}
