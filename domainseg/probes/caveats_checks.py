"""Is the audit silent where there is nothing, and does it speak where there is? On networks trained for the question.

off: one whole-film network that learned on films without a confounder answers fresh draws of patients; the sites stay
visible on the films, and an alarm is a false one. severe: whole-film networks that learned with a severe confounder,
one a seed, on fresh draws with the same relation; the use of the site should be found. Only attributes are asked about
that the phantom makes independent of fractures without a confounder: sex and age go with fractures, as in life.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from domainseg.data.manifest import Manifest
from domainseg.evaluation.intervals import Metric, proportion
from domainseg.files import read_json, write_json
from domainseg.probes.audit import audit
from domainseg.probes.caveats_films import drawn, learning
from domainseg.probes.caveats_models import Model, score_films, train_network
from domainseg.probes.common import ProbeError
from domainseg.probes.material import Material
from domainseg.probes.verdicts import p_used

log = logging.getLogger(__name__)

ATTRIBUTES = ("site", "department", "portable")


def check(
    cfg: Mapping[str, Any], output: Path, model: Model, films: Mapping[str, Any], draws: int, severe_seeds: int
) -> dict[str, Any]:
    """Both checks: their units (cells/check-*.json), and how often there was an alarm, and a use of the site.

    draws, severe_seeds: how many units; 0 leaves a check out. What is finished is taken up.
    """
    seed = int(cfg["seed"])
    units = {
        "off": [_unit(cfg, output, model, films, "none", seed, draw) for draw in range(draws)],
        "severe": [_unit(cfg, output, model, films, "severe", seed + k, 500 + k) for k in range(severe_seeds)],
    }
    return {
        name: {
            "units": found,
            "alarms": _share([bool(unit["alarms"]) for unit in found]),
            "used": _share([unit["site"]["used"] for unit in found]),
        }
        for name, found in units.items()
        if found
    }


def _share(hits: list[bool]) -> Metric:
    return proportion(np.array(hits, dtype=bool), np.arange(len(hits)))


def _unit(
    cfg: Mapping[str, Any],
    output: Path,
    model: Model,
    films: Mapping[str, Any],
    confounder: str,
    seed: int,
    draw: int,
) -> dict[str, Any]:
    """One network and one draw of patients, audited."""
    file = output / "cells" / f"check-{confounder}-{seed}-{draw}.json"
    if file.is_file():
        found: dict[str, Any] = read_json(file)
        return found
    folder = output / "networks" / f"check-{confounder}-{seed}"
    coarse = {"reduction": films["drawn_reduction"]}
    network = train_network(cfg, model, learning(cfg, films, "both", confounder, seed, coarse), [], folder, seed)
    patients = drawn(cfg, films, confounder, draw)
    table = score_films(model, network, [], patients, file.stem)
    audited = audit(
        Material(table, file.stem, scored=True, files=_files(patients)),
        {**cfg, "attributes": list(ATTRIBUTES), "severity": [], "target": "fracture"},
    )
    found = {"confounder": confounder, "seed": seed, "draw": draw, **summary(audited, cfg["alarm"])}
    write_json(file, found)
    return found


def summary(audited: Mapping[str, Any], alarm: Mapping[str, float]) -> dict[str, Any]:
    """What is kept of an audit: its alarms, and the three findings of the site."""
    whole = audited["targets"]["fracture"]
    site = next(record for record in whole["attributes"] if record["attribute"] == "site")
    if site["skipped"]:
        raise ProbeError(f"check: the site cannot be judged ({site['skipped']}); raise probe.films.drawn")
    image = site["detectable"].get("image")
    return {
        "alarms": [one["attribute"] for one in audited["alarms"]],
        "films": whole["n"],
        "patients": whole["patients"],
        "auc": whole["auc"],
        "site": {
            "verdict": site["verdict"],
            "used": p_used(site["used"], alarm) < alarm["level"],
            "shift": site["used"]["shift"]["largest"],
            "fall": site["used"]["fall"]["difference"],
            "associated": site["associated"]["auc"],
            "detectable": None if image is None else image["auc"],
        },
    }


def _files(films: Manifest) -> dict[str, Path]:
    return {image: films.path(image) for image in films.images["image"]}
