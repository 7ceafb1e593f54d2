"""Films of the caveats' demonstration: a confounded cohort to learn from, test patients filmed at every site.

A simulated film is a function of seed, index and settings. Where all patients come to one site and the confounder is
off, the same index is the same patient with the same hips at that site: three such simulations show each test patient
at each site, and what differs between a patient's films is what gives the site away and nothing else. Whether site and
label go together in a test is then a matter of which of these films count how much (``relations``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.data.manifest import Manifest
from domainseg.data.splits import DIVIDING, assign_splits
from domainseg.phantom.cohort import prevalence
from domainseg.phantom.settings import SITES, Settings
from domainseg.training.stages import build

PLACES = ("outside", "inside", "both")
# Simulations of other seeds than those that users give: no film of the filters' run, and none of another set, is here.
_SEEDS = {"train": 10_000, "test": 20_000, "draw": 30_000}


def learning(
    cfg: Mapping[str, Any],
    films: Mapping[str, Any],
    place: str,
    confounder: str,
    seed: int,
    more: Mapping[str, Any] | None = None,
) -> Manifest:
    """The films that models learn from, divided into train and tune (0.85 and 0.15 of the patients).

    films: settings of the demonstration (conf/probe/caveats.yaml). place: outside, inside or both. more: settings of
    the phantom for these films alone.
    """
    changed = {"confounder": confounder, "confounder_place": place, "n": films["train"], **(more or {})}
    manifest = _simulated(cfg, films, changed, _SEEDS["train"] + seed)
    return assign_splits(manifest, seed=seed, fractions={"train": 0.85, "tune": 0.15, "test": 0.0})


def photographed(cfg: Mapping[str, Any], films: Mapping[str, Any], place: str) -> dict[str, Manifest]:
    """The test patients, by the site at which all of them were filmed; the same image name is the same patient's."""
    shared = {"confounder": "none", "confounder_place": place, "n": films["test"]}
    seed = _SEEDS["test"] + int(cfg["seed"])
    return {site: _simulated(cfg, films, {**shared, "sites": {site: 1.0}}, seed) for site in SITES}


def drawn(cfg: Mapping[str, Any], films: Mapping[str, Any], confounder: str, draw: int) -> Manifest:
    """A fresh draw of patients as they come, all of them for the test; site shows inside and outside the ROI.

    With a confounder fractures are half as frequent as in the films to learn from: else site A would have next to no
    patient without one, and no audit could compare patients of one label between the sites.
    """
    changed = {"confounder": confounder, "confounder_place": "both", "n": films["drawn"]}
    if confounder != "none":
        changed["fracture"] = films["settings"]["fracture"] / 2
    changed["reduction"] = films["drawn_reduction"]
    return _simulated(cfg, films, changed, _SEEDS["draw"] + 1000 * int(cfg["seed"]) + draw)


def _simulated(cfg: Mapping[str, Any], films: Mapping[str, Any], changed: Mapping[str, Any], seed: int) -> Manifest:
    data = {key: value for key, value in cfg["data"].items() if key not in DIVIDING}
    wanted = {**data, **films["settings"], **changed, "seed": seed}
    if data["root"] is not None:
        name = "-".join([str(changed["confounder_place"]), str(changed["confounder"]), str(seed)])
        name += "".join(f"-{site}" for site in changed.get("sites", {}))
        wanted["root"] = str(Path(data["root"]) / f"{name}-{wanted['n']}-{wanted['reduction']}")
    manifest: Manifest = build(wanted)
    return manifest


def relations(settings: Settings) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Test -> site -> [2], how often films of label 0 and 1 come from the site.

    inside: as in training. absent: as often for both labels. reversed: as in training with the labels exchanged.
    """
    names = sorted(settings.sites)
    share = np.array([settings.sites[name] for name in names], float)
    share /= share.sum()
    risk = np.array([prevalence(settings, exposed=name == "A") for name in names])
    label = np.stack([share * (1 - risk), share * risk], 1)  # [site, label]
    label /= label.sum(0)
    tables = {"inside": label, "absent": np.stack([share, share], 1), "reversed": label[:, ::-1]}
    return {name: dict(zip(names, table, strict=True)) for name, table in tables.items()}
