"""The films of ``data=`` that a bundle has not learned from, as far as that can be known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainseg.data.manifest import Manifest
from domainseg.data.splits import divided, in_cohort
from domainseg.probes.common import ProbeError, all_films, as_training_divides, films_in_cohort


def unseen(cfg: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[Manifest, str]:
    """The films of ``data=`` and its cohort, and for people which; of those that a bundle was made from its test films.

    record: bundle.json. Raises ProbeError, ManifestError.
    """
    if all_films(cfg).identity() == record["data"].get("identity"):
        films, said = held_out(cfg, record)
        cohort = in_cohort(films.images, cfg["data"].get("cohort"))
        part = films.where(cohort)
        return part, said if len(part) == len(films) else f"{said} Of these, {len(part)} are in data.cohort."
    films = films_in_cohort(cfg)
    return films, f"{len(films)} films are judged: that none of them trained the model is taken on trust."


def held_out(cfg: Mapping[str, Any], record: Mapping[str, Any], split: str = "test") -> tuple[Manifest, str]:
    """The films of ``split`` (train, tune or test), and for people how sure it is that the bundle is new to them.

    record: bundle.json. Films that the bundle was made from are divided as its own run divided them, whatever seed= and
    data.* say now; others as training on them would divide them. Raises ProbeError where that cannot be done again, and
    ManifestError.
    """
    films, made = all_films(cfg), record["data"]
    if films.identity() != made.get("identity"):
        part = as_training_divides(cfg, films).split(split)
        known = "is not" if "identity" in made else "may be"
        return part, (
            f"{len(part)} films are judged: those that data={films.name} with seed={cfg['seed']} puts into the split "
            f"{split}. {films.name} {known} what the bundle was made from; that it learned from none of them is taken "
            "on trust."
        )
    if made["division"].get("folds"):
        raise ProbeError(
            f"data={films.name} holds the films that the bundle learned from: its run was cross-validated, and its "
            "networks were then trained on all of them. Give films that it has not seen, or "
            "predictions=RUN/predictions.parquet, which each fold predicted unseen"
        )
    part = divided(films, made["division"], int(made["seed"])).split(split)
    if part.identity() != made["splits"].get(split, {}).get("identity"):
        raise ProbeError(
            f"data={films.name} holds the films that the bundle was made from, but with other labels or another split "
            "column they cannot be divided as its run did, so films that it learned from might be judged: put the "
            "column split of the run's splits.csv into the table"
        )
    return part, f"{len(part)} films are judged: those that the bundle's own run kept as {split}."
