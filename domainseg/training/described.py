"""What a run learned from, in numbers that a bundle may tell: films by split and site, labels, the input envelope."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from domainseg.bundle.envelope import measure
from domainseg.cascade.cascade import read_ahead
from domainseg.cascade.reads import VOLUMES, Reading
from domainseg.data.manifest import Manifest
from domainseg.data.splits import DIVIDING, clusters
from domainseg.data.tables import SPLITS, is_binary_label
from domainseg.files import read_json, write_json
from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.volume import Volume
from domainseg.training.stages import reading_in

log = logging.getLogger(__name__)

RECORD = "data.json"
SAMPLE, EXAMS = 200, 50  # training films, or exams, that the envelope is measured on (our choice)


def described(run: Path, settings: Mapping[str, Any], manifest: Manifest | None) -> dict[str, Any]:
    """The description of a run's data, from its folder, or made now from its films and written there.

    name, simulated, films, sha256, identity (Manifest.identity), cohort (of tune and test), division (the settings
    of data.* that divide); splits: name -> films, patients, sha256, identity, sites (films by site), labels (target
    -> positive, negative, of: films or parts); envelope: see domainseg.bundle.envelope, with the number of training
    films as ``of``. Without films, of a run that was never exported: what environment.json knows.
    """
    file = run / RECORD
    if file.is_file():
        found: dict[str, Any] = read_json(file)
        if manifest is None or "identity" in found:  # written since films are known again by it
            return found
    known = read_json(run / "environment.json")
    found = {
        **known["manifest"],
        "simulated": ".sources.phantom_" in str(settings["data"].get("_target_", "")),
        "cohort": settings["data"].get("cohort"),
        "splits": known["splits"],
        "division": {key: settings["data"][key] for key in DIVIDING if settings["data"].get(key) is not None},
        "envelope": {},
    }
    if manifest is not None:
        found["identity"] = manifest.identity()
        found["splits"] = {name: split(manifest.split(name)) for name in SPLITS if len(manifest.split(name))}
        found["envelope"] = envelope(manifest.split("train"), reading_in(settings))
        write_json(file, found)
    return found


def split(part: Manifest) -> dict[str, Any]:
    """Films, patients, sites and labels of one split; labels of parts (hips) where there are any, else of films."""
    labels = {}
    for name in sorted(str(column) for column in part.targets if is_binary_label(str(column))):
        known = part.targets[part.targets[name].notna()].drop_duplicates(["image", "part"])
        hips = known[known["part"] != "whole"]
        counted = hips if len(hips) else known
        if len(counted):
            positive = int((counted[name] == 1).sum())
            unit = "films" if counted is known else "parts"
            labels[name.removeprefix("label_")] = {
                "positive": positive,
                "negative": len(counted) - positive,
                "of": unit,
            }
    sites = part.images["site"].replace("", "unknown").value_counts().sort_index()
    return {
        "films": len(part),
        "patients": int(clusters(part.images).nunique()),
        "sha256": part.hash(),
        "identity": part.identity(),
        "sites": {str(site): int(count) for site, count in sites.items()},
        "labels": labels,
    }


def envelope(train: Manifest, reading: Reading) -> dict[str, Any]:
    """The envelope of at most SAMPLE training films or EXAMS exams, evenly spaced in the table's order."""
    images = list(train.images["image"])
    chosen = spaced(images, EXAMS if reading is VOLUMES else SAMPLE)

    def films() -> Iterator[Film | Volume]:
        for _, film in read_ahead([(image, train.path(image)) for image in chosen], reading=reading):
            if not isinstance(film, ImageReadError):
                yield film

    return {**measure(films()), "of": len(images)}


def spaced(images: list[str], count: int) -> list[str]:
    """At most ``count`` of the images, evenly spaced."""
    if len(images) <= count:
        return images
    return [images[int(k)] for k in np.linspace(0, len(images) - 1, count)]
