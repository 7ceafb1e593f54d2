"""Train a pipeline several times on the same films, each time with other splits, and put the tests into one table."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from domainseg.data.manifest import Manifest
from domainseg.data.splits import DIVIDING
from domainseg.files import atomic_path
from domainseg.probes.common import ProbeError

log = logging.getLogger(__name__)

OWN = ("predictions", "bundle", "run", "columns", "probe", "resamples")  # settings of the audit, not of training


def load(source: Manifest, splits: Path | str) -> Manifest:
    """The data source of such a run: the films of another source, divided as a file says (image, split)."""
    table = pd.read_csv(splits, dtype=str, keep_default_na=False).set_index("image")["split"]
    return source.with_images(split=source.images["image"].map(table).fillna("").astype(str))


def train_each(cfg: Mapping[str, Any], output: Path, splits: Mapping[str, pd.Series], column: str) -> pd.DataFrame:
    """Train the pipeline of ``cfg`` once for each division of the films; returns the tests of all, in long form.

    splits: name -> split of each image (series over images). The run of a name is output/models/<name>, its division
    output/splits/<name>.csv; a run that has finished is not repeated, one that was interrupted goes on. The table, also
    written to ``output``, has the test rows of all runs with the name in ``column``.
    """
    from domainseg.cascade.table import write_table  # late: torch
    from domainseg.training.run import train

    if not cfg["stage"]:
        raise ProbeError("nothing to train: name a pipeline, as in +pipeline=hip, or give predictions=FILE")
    parts = []
    for number, (name, split) in enumerate(splits.items(), 1):
        folder = output / "models" / file_name(name)
        file = output / "splits" / f"{file_name(name)}.csv"
        write_division(split, file)
        settings = run_settings(cfg, file, folder)
        write_config(settings, folder)
        log.info("model %d of %d: %s", number, len(splits), name)
        train({**settings, "resume": True}, folder)
        table = pd.read_parquet(folder / "predictions.parquet")
        parts.append(table[table["split"] == "test"].assign(**{column: name}))
    table = pd.concat(parts, ignore_index=True)
    for who in {"patient", "group"} & set(table.columns):  # each run has a key of its own: one name for each patient
        table[who] = table.groupby("image")[who].transform("first")
    write_table(table, output)
    return table


def run_settings(cfg: Mapping[str, Any], splits: Path, folder: Path) -> dict[str, Any]:
    """The configuration of one run: as asked for, on divided films, without a bundle (domainseg.export makes one)."""
    source = {key: value for key, value in cfg["data"].items() if key not in DIVIDING}
    divided = {"_target_": "domainseg.probes.trained.load", "source": source, "splits": str(splits)}
    data = {**divided, "fractions": cfg["data"].get("fractions"), "folds": None}
    kept = {key: value for key, value in cfg.items() if key not in OWN}
    return {**kept, "data": data, "output": str(folder), "export": False, "resume": False}


def write_config(settings: Mapping[str, Any], folder: Path) -> None:
    """config.yaml of a run folder, so that it can be exported and resumed like any other."""
    from omegaconf import OmegaConf

    if not (folder / "config.yaml").is_file():
        with atomic_path(folder / "config.yaml") as temporary:
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(dict(settings))))


def write_division(split: pd.Series, path: Path) -> None:
    """The split of each image as CSV, sorted by image. Raises ProbeError when another one is there."""
    table = pd.DataFrame({"image": split.index.astype(str), "split": split.to_numpy()}).sort_values("image")
    text = table.to_csv(index=False, lineterminator="\n")
    if path.is_file() and path.read_text() != text:
        raise ProbeError(f"{path}: divides the films in another way; name another folder with output=DIR")
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def file_name(name: str) -> str:
    """A name as that of a file or folder: what others than letters, digits, plus, dash and dot become _."""
    return re.sub(r"[^\w+.-]", "_", name).lstrip(".") or "_"
