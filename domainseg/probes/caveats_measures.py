"""What a model's scores of patients who were filmed at every site say about the confounder.

The same films carry every test: inside, absent and reversed only differ in how much each film counts, namely as often
as a film of its label comes from its site there (domainseg/probes/caveats_films.py). All intervals and differences are
paired and by patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import Array, Metric, codes, empty, exact, weighted_all
from domainseg.evaluation.tables import clusters_of, numbers, texts

Relations = Mapping[str, Mapping[str, NDArray[np.float64]]]
# Nearer to 0 or 1 hardly a patient is out of order, and resampled patients say little of those who were not met.
EXTREME = 0.05
WIDENED = ", widened to the exact bound at the patients of the rarer class"
Weighed = tuple[Array, Array]  # scores of films, and how much each film counts


def measure(table: pd.DataFrame, related: Relations, resamples: int, seed: int) -> dict[str, Any]:
    """AUC of each test, of reversed minus inside, within each site; and how films move with the site.

    table: image, site, group, label_fracture, score_fracture; one row a film and site, an image being the same
    patient's at each site. related: see ``relations``. A film that has lost its score is judged on intention.
    """
    label, score = numbers(table, "label_fracture"), on_intention(table)
    site, people = texts(table, "site").astype(str), clusters_of(table)
    found: dict[str, Any] = {"auc": {}, "within": {}}
    weights = {name: row_weights(label, site, related[name]) for name in related}
    tests = {name: (score, weight) for name, weight in weights.items()}
    found["auc"] = dict(zip(tests, _aucs(label, list(tests.values()), people, resamples, seed), strict=True))
    found["fall"] = falls(label, tests["inside"], tests["reversed"], people, resamples, seed)
    for name in sorted(set(site)):
        here = site == name
        found["within"][name] = roc.auc(label[here], score[here], people[here])
    found["higher_as_a"], found["shift"] = swapped(table, resamples=resamples, seed=seed)
    found["lost"] = int(np.isinf(score).sum())
    return found


def on_intention(table: pd.DataFrame) -> Array:
    """Scores [n]; a fractured film without one scores -inf, an intact one +inf."""
    label, score = numbers(table, "label_fracture"), numbers(table, "score_fracture")
    return np.where(np.isnan(score), np.where(label == 1, -np.inf, np.inf), score)


def row_weights(label: Array, site: NDArray[Any], relation: Mapping[str, NDArray[np.float64]]) -> Array:
    """How much each film counts [n]: how often a film of its label comes from its site."""
    return np.array([relation[name][int(one)] for name, one in zip(site, label, strict=True)])


def falls(label: Array, a: Weighed, b: Weighed, people: NDArray[Any], resamples: int, seed: int) -> Metric:
    """AUC of b minus AUC of a on the same films, each with its own scores and weights; bootstrap by patient."""
    one, two = roc.weighted_auc(label, a[0]), roc.weighted_auc(label, b[0])

    def gap(drawn: Array) -> Array:
        return np.asarray(two(drawn * b[1]) - one(drawn * a[1]))[:, None]

    (record,) = weighted_all(gap, 1, people, resamples=resamples, seed=seed)
    ends = [float(curve(weights[None])[0]) for curve, (_, weights) in ((one, a), (two, b))]
    if min(ends) > 1 - EXTREME or max(ends) < EXTREME:
        reach = exact(0.0, _fewest(label, people))[1]
        record["low"] = max(-1.0, min(record["low"], record["value"] - reach))
        record["high"] = min(1.0, max(record["high"], record["value"] + reach))
        record["method"] += WIDENED
    return record


def _aucs(label: Array, tests: Sequence[Weighed], people: NDArray[Any], resamples: int, seed: int) -> list[Metric]:
    curves = [(roc.weighted_auc(label, score), weights) for score, weights in tests]

    def statistic(drawn: Array) -> Array:
        return np.stack([curve(drawn * weights) for curve, weights in curves], 1)

    records = weighted_all(statistic, len(curves), people, resamples=resamples, seed=seed)
    return [_bounded(record, _fewest(label, people)) for record in records]


def _bounded(record: Metric, patients: int) -> Metric:
    """The record, where its value is near 0 or 1, with an interval no narrower than the exact one of a proportion."""
    if not EXTREME <= record["value"] <= 1 - EXTREME:
        low, high = exact(record["value"], patients)
        record["low"], record["high"] = min(record["low"], low), max(record["high"], high)
        record["method"] += WIDENED
    return record


def _fewest(label: Array, people: NDArray[Any]) -> int:
    """Patients of the rarer class."""
    return min(len(np.unique(people[label == side])) for side in (0, 1))


def swapped(table: pd.DataFrame, *, resamples: int, seed: int) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """By other site: how often a film scores higher as one of site A than as one of that site, and by how much.

    The film is the same but for what gives the site away: 0.5, and a shift of 0, is a model that does not use it. The
    shift is that of the log-odds, in standard deviations that they have between patients of one label at one site.
    """
    kept = table[~np.isnan(numbers(table, "score_fracture"))]
    score = np.clip(numbers(kept, "score_fracture"), 1e-12, 1 - 1e-12)
    kept = kept.assign(odds=np.log(score) - np.log1p(-score))
    wide = kept.pivot(index="image", columns="site", values="odds").dropna()
    spread = float(np.sqrt(kept.groupby(["site", "label_fracture"])["odds"].var().mean()))
    first = table.drop_duplicates("image").set_index("image").loc[wide.index].reset_index()
    people = clusters_of(first)
    often: dict[str, Metric] = {}
    far: dict[str, Metric] = {}
    for other in sorted(set(texts(table, "site").astype(str)) - {"A"}):
        if not {"A", other} <= set(wide.columns):
            often[other] = far[other] = empty("no film with a score at every site")
            continue
        gap = (wide["A"] - wide[other]).to_numpy()
        values = np.stack([(gap > 0) + 0.5 * (gap == 0), gap / spread if spread > 0 else 0 * gap], 1)

        def mean(drawn: Array, values: Array = values) -> Array:
            return np.asarray(drawn @ values / drawn.sum(1, keepdims=True))

        higher, far[other] = weighted_all(mean, 2, people, resamples=resamples, seed=seed)
        often[other] = _bounded(higher, codes(people)[1]) if len(people) else higher
    return often, far


def site_alone(related: Relations) -> dict[str, float]:
    """AUC of ranking films by the share of fractures that their site had in training: by design, without a model."""
    inside = related["inside"]
    ranks = {name: round(float(inside[name][1] / inside[name][0]), 9) for name in inside}
    found = {}
    for test, relation in related.items():
        pairs = [
            (relation[a][1] * relation[b][0], float(ranks[a] > ranks[b]) + 0.5 * (ranks[a] == ranks[b]))
            for a in relation
            for b in relation
        ]
        found[test] = float(sum(weight * won for weight, won in pairs))
    return found
