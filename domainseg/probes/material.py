"""What an audit has to go by: a prediction table, a bundle with its films, or a manifest alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from domainseg.data.manifest import Manifest, ManifestError
from domainseg.data.tables import is_binary_label
from domainseg.evaluation.tables import EvaluationError, read_table, repaired, texts
from domainseg.overrides import UsageError
from domainseg.probes.common import films_in_cohort
from domainseg.probes.held_out import held_out

log = logging.getLogger(__name__)

_MAIN = ("fracture", "hemorrhage")  # targets of the cascades; the others are their filters, or parts of the answer


@dataclass(frozen=True)
class Material:
    """table: a row a case, with label_<target> and metadata; with ``scored`` also score_<target>. name: what was
    audited. files: image -> path of the films, empty without films. bundle: folder of the bundle, if one is audited.
    said: what was done to the table, and what is taken on trust."""

    table: pd.DataFrame
    name: str
    scored: bool
    files: Mapping[str, Path] = field(default_factory=dict, repr=False)
    bundle: Path | None = None
    said: list[str] = field(default_factory=list)


def material(cfg: Mapping[str, Any], output: Path) -> Material:
    """Read what the command line names. Raises UsageError, EvaluationError, ManifestError, BundleError."""
    predictions, bundle, data = cfg["predictions"], cfg["bundle"], cfg.get("data")
    if predictions is not None and bundle is not None:
        raise UsageError("give one of predictions=FILE and bundle=DIR: a table has its scores already")
    if predictions is None and data is None:
        raise UsageError(
            "nothing to audit: give predictions=FILE, or bundle=DIR with data=NAME, or data=NAME alone "
            "(data=manifest data.path=films.csv)"
        )
    if predictions is not None:
        return _of_table(Path(predictions), cfg, None if data is None else films_in_cohort(cfg))
    if bundle is not None:
        return _of_bundle(Path(bundle), cfg, output)
    films = films_in_cohort(cfg)
    table, said = repaired(labelled(films))
    return Material(table, films.name, scored=False, files=_paths(films), said=said)


def labelled(films: Manifest) -> pd.DataFrame:
    """A row for each (image, part) of which a label is known, with the metadata of its film."""
    names = [name for name in films.targets if is_binary_label(str(name)) and films.targets[name].notna().any()]
    if not names:
        raise ManifestError(f"{films.name}: no label_<target> is known of any film, so nothing can be associated")
    known = films.targets.groupby(["image", "part"], sort=False)[names].first().reset_index()
    return known.merge(films.images, on="image", how="left", validate="many_to_one")


def _paths(films: Manifest) -> dict[str, Path]:
    return {image: films.path(image) for image in films.images["image"]}


def _of_table(path: Path, cfg: Mapping[str, Any], films: Manifest | None) -> Material:
    table, said = repaired(read_table(path, cfg["columns"]))
    if table.empty:
        raise EvaluationError(f"{path}: has no rows, so there is nothing to audit")
    files: dict[str, Path] = {}
    if films is not None:
        files = {image: file for image, file in _paths(films).items() if image in set(texts(table, "image"))}
        if not files:
            raise EvaluationError(f"{path}: none of its images is in {films.name}; image must mean the same in both")
        if without := len(set(texts(table, "image")) - set(files)):
            said.append(f"{without} images of the table are not in {films.name}: of them there is the table alone.")
        extra = [name for name in films.images if name == "image" or name not in table]
        table = table.assign(image=texts(table, "image")).merge(films.images[extra], on="image", how="left")
    return Material(_of_split(table, cfg, said), path.stem, scored=True, files=files, said=said)


def _of_split(table: pd.DataFrame, cfg: Mapping[str, Any], said: list[str]) -> pd.DataFrame:
    """The rows of the split that is audited; all where there is no column, or with split=all."""
    if "split" not in table or cfg["split"] == "all":
        if "split" not in table:
            said.append("The table has no column split: that no model was trained on these cases is taken on trust.")
        return table
    names = texts(table, "split")
    kept: pd.DataFrame = table[names == cfg["split"]]
    if kept.empty:
        there = ", ".join(sorted({name for name in names if name is not None})) or "nothing"
        raise EvaluationError(
            f"split={cfg['split']}: no such case; the column split holds {there}. split=all takes all"
        )
    if len(kept) < len(table):
        said.append(f"{len(kept)} of {len(table)} cases are audited: those of the split {cfg['split']}.")
    return kept.reset_index(drop=True)


def _of_bundle(bundle: Path, cfg: Mapping[str, Any], output: Path) -> Material:
    """Predict the films of the split with the bundle, into output/predictions."""
    from domainseg.bundle.command import predict_table
    from domainseg.bundle.model import bundle_model
    from domainseg.bundle.verify import verify_bundle
    from domainseg.data.privacy import patient_key

    if cfg["split"] == "all":
        films, origin = (
            films_in_cohort(cfg),
            "All films are audited: that none of them trained the model is taken on trust.",
        )
    else:
        films, origin = held_out(cfg, verify_bundle(bundle).record, cfg["split"])
    settings = {
        "bundle": bundle,
        "backend": "onnxruntime",
        "precision": "fp32",
        "memory_gb": None,
        "threads": None,
        "workers": cfg["workers"],
        "overlays": False,
        "masks": False,
        "seg": False,
    }
    folder = output / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    found = predict_table(bundle_model(settings), films, patient_key(None, folder), folder, settings)
    extra = ["image", *(name for name in films.images if name not in found)]
    table, repairs = repaired(found.merge(films.images[extra], on="image", how="left"))
    name = bundle.parent.name if bundle.name == "bundle" else bundle.name
    return Material(table, name, scored=True, files=_paths(films), bundle=bundle, said=[origin, *repairs])


def targets_to_audit(has: list[str], asked: Any) -> list[str]:
    """The targets: those asked for (a name or a list), the main one of a cascade, else all. EvaluationError."""
    if asked is not None:
        names = [str(name) for name in (asked if isinstance(asked, (list, tuple)) else [asked])]
        if unknown := [name for name in names if name not in has]:
            raise EvaluationError(f"target={unknown[0]}: is no target here; there are {', '.join(has)}")
        return names
    main = [name for name in _MAIN if name in has]
    return main or has
