"""The cross-site table: models trained on some sites, tested on others, as in Table 3 of Zech et al. 2018 (PLOS Med).

  python -m domainseg.audit +probe=cross_site predictions=FILE target=pneumonia output=DIR
  python -m domainseg.audit +probe=cross_site +pipeline=hip data=manifest data.path=films.csv probe.train=[[A],[A,B]]

A table from elsewhere is in long form: one row a case and model, where ``trained_on`` names the sites that the model
was trained on, joined by a plus ("NIH", "MSH+NIH"). Two things tell a model that found the disease from one that found
the site: how it does where it was not trained, and how much of a pooled AUC is left within each site.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.data.splits import in_cohort
from domainseg.evaluation import roc
from domainseg.evaluation.intervals import Array, Metric, codes, empty, proportion
from domainseg.evaluation.operating import on_test_thresholds
from domainseg.evaluation.tables import Rows, texts
from domainseg.probes.common import (
    ProbeError,
    both_classes,
    enough,
    given_split,
    judged,
    load_films,
    need_columns,
    read_predictions,
    sites_of,
    target_of,
    write_results,
)
from domainseg.probes.effects import holm

Sites = frozenset[str]
Kind = Literal["internal", "subset", "external", "superset", "overlapping"]
KINDS: tuple[Kind, ...] = ("internal", "subset", "external", "superset", "overlapping")
SENSITIVITY = 0.95  # of Zech's on-test threshold
MEASURES = ("accuracy", "sensitivity", "specificity", "ppv", "npv")


@dataclass(frozen=True)
class Model:
    """What one model, trained on ``sites``, said of all test cases; site [n] is that of each row."""

    sites: Sites
    rows: Rows
    site: NDArray[Any]

    def on(self, test: Sites) -> Model:
        """Its rows of these sites."""
        here = np.isin(self.site, sorted(test))
        return Model(self.sites, self.rows.take(here), self.site[here])


def run(
    cfg: dict[str, Any],
    output: Path,
    *,
    train: Sequence[Sequence[str]] | None = None,
    test: Sequence[Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Write cross_site.json and cross_site.html; returns what the former holds.

    train: sets of sites, one a model, that are trained with ``+pipeline=``; null takes the models of the table.
    test: sets of sites to test on; null takes each site, each set that a model was trained on, and all sites.
    Raises ProbeError, EvaluationError and what training raises.
    """
    if train is not None or cfg.get("stage"):
        from domainseg.probes.trained import train_each

        table, said = train_each(cfg, output, splits_of(cfg, train or []), "trained_on"), list[str]()
        target = str(cfg["target"])
    else:
        table, said = read_predictions(cfg, "trained_on")
        target = target_of(cfg, table)
    need_columns(table, "trained_on", "site")
    models, more = models_of(table, target)
    record = cross_site(models, None if test is None else [frozenset(map(str, sites)) for sites in test])
    record = {"target": target, **record, "said": said + more}
    from domainseg.probes.cross_site_page import page_of, short_table

    write_results(output, "cross_site", record, page_of(record), short_table(record))
    return record


def splits_of(cfg: Mapping[str, Any], train: Sequence[Sequence[str]]) -> dict[str, pd.Series]:
    """For each set of training sites the split of each image: the same test films, other sites to train and tune on.

    A site that no model is trained on is tested with all its films of the cohort, unless the images table says itself
    who is tested. Raises ProbeError for sites that are not there.
    """
    images = load_films(cfg).images
    sets = list(dict.fromkeys(frozenset(map(str, sites)) for sites in train))
    if not sets or not all(sets):
        raise ProbeError("probe.train is needed: the sets of sites to train on, as in probe.train=[[A],[B],[A,B]]")
    trained = frozenset().union(*sets)
    if strange := sorted(trained - set(images["site"])):
        there = ", ".join(sorted(set(images["site"]) - {""})) or "none, the column is empty"
        raise ProbeError(f"probe.train: no film is of {', '.join(strange)}; sites are {there}")
    split = images.set_index("image")["split"]
    if not given_split(cfg):
        elsewhere = (
            ~images["site"].isin(trained) & (images["site"] != "") & in_cohort(images, cfg["data"].get("cohort"))
        )
        split = split.mask(~images["site"].isin(trained).to_numpy(), "").mask(elsewhere.to_numpy(), "test")
    held = pd.Series(images["site"].to_numpy(), index=split.index)
    return {name_of(sites): split.where((split == "test") | held.isin(sites), "") for sites in sets}


def models_of(table: pd.DataFrame, target: str) -> tuple[list[Model], list[str]]:
    """The models of a table in long form, in its order, and what has to be said about them."""
    known = {site.casefold(): site for site in sites_of(table)}
    said, models = [], dict[Sites, Model]()
    names = texts(table, "trained_on")
    for name in dict.fromkeys(names):
        parts = [" ".join(part.split()) for part in str(name).split("+")]
        sites = frozenset(known.get(part.casefold(), part) for part in parts if part)
        if not sites:
            raise ProbeError(
                f"trained_on={name!r}: name the sites that the model was trained on, joined by a plus: A+B"
            )
        if sites in models:
            raise ProbeError(f"trained_on: {name!r} and another name are the same sites; one name for each model")
        if strange := sorted(sites - set(known.values())):
            said.append(f"No test case is of {', '.join(strange)}, where {name} was trained: it has no internal test.")
        part = table[names == name]
        rows = judged(part, target)
        # Numbers are compared faster than names.
        rows = replace(rows, clusters=codes(rows.clusters)[0], fold=codes(rows.fold)[0])
        unscored = len(part) - len(rows)
        if unscored:
            said.append(
                f"{name}: {unscored} of {len(part)} rows are not of the test split, without a label or a score."
            )
        models[sites] = Model(sites, rows, texts(rows.table, "site"))
    return list(models.values()), said


def cross_site(models: Sequence[Model], tests: Sequence[Sites] | None = None) -> dict[str, Any]:
    """All rows of the table, and the tests between them, as plain nested dicts.

    rows: one a model and test set (see ``_row``). internal_external: each model on its own sites against elsewhere,
    unpaired. models: two models on the same cases, paired. p_holm is corrected within each of the two lists.
    """
    there = frozenset(site for model in models for site in model.site)
    wanted = default_tests(models, there) if tests is None else list(dict.fromkeys(tests))
    if unknown := sorted(frozenset().union(*wanted) - there):
        raise ProbeError(f"probe.test: no test case is of {', '.join(unknown)}; there are {', '.join(sorted(there))}")
    rows = [_row(model, test) for model in models for test in _in_order(model, wanted)]
    return {
        "sites": {site: _site(models, site) for site in sorted(there)},
        "rows": rows,
        "internal_external": _corrected(_internal_external(models, wanted), "worse elsewhere", "better elsewhere"),
        "models": _corrected(_between_models(models, wanted), "first better", "second better"),
    }


def default_tests(models: Sequence[Model], there: Sites) -> list[Sites]:
    """Each site, each set of sites that a model was trained on, and all of them."""
    trained = [model.sites & there for model in models]
    sets = [*(frozenset([site]) for site in sorted(there)), *sorted(filter(None, trained), key=_by_size), there]
    return list(dict.fromkeys(sets))


def kind_of(train: Sites, test: Sites) -> Kind:
    """What a test set is to a model: its own sites, a part of them, others, or its own with others."""
    if train == test:
        return "internal"
    if test < train:
        return "subset"
    if not train & test:
        return "external"
    return "superset" if test > train else "overlapping"


def name_of(sites: Iterable[str]) -> str:
    """A set of sites as one name."""
    return "+".join(sorted(sites))


def _by_size(sites: Sites) -> tuple[int, str]:
    return len(sites), name_of(sites)


def _in_order(model: Model, tests: Sequence[Sites]) -> list[Sites]:
    return sorted(tests, key=lambda test: (KINDS.index(kind_of(model.sites, test)), *_by_size(test)))


def _site(models: Sequence[Model], site: str) -> dict[str, Any]:
    """A site's cases, as the first model that was tested there has them."""
    found = next(part for model in models if len((part := model.on(frozenset([site]))).rows))
    label = found.rows.label
    return {
        "n": len(label),
        "positive": int((label == 1).sum()),
        "prevalence": proportion(label == 1, found.rows.clusters),
    }


def _row(model: Model, test: Sites) -> dict[str, Any]:
    """One row of the table.

    within: AUC in each site of a pooled test; within_sites: over all pairs of cases of the same site. site_alone: AUC
    of ranking by the site's prevalence, over_site: how much better the model is (paired). tune: at the threshold frozen
    on tune; on_test: at the threshold set on the test set itself (in each fold) for 95 % sensitivity, as in the paper.
    """
    here = model.on(test)
    rows = here.rows
    cut = on_test_thresholds(rows.label, rows.score, rows.fold, SENSITIVITY)
    found: dict[str, Any] = {
        "trained_on": name_of(model.sites),
        "test": name_of(test),
        "kind": kind_of(model.sites, test),
        "n": len(rows),
        "positive": int((rows.label == 1).sum()),
        "few": not enough(rows),
        "auc": roc.auc(rows.label, rows.score, rows.clusters, rows.fold),
        "tune": _decisions(rows, rows.threshold),
        "on_test": _decisions(rows, cut),
        "on_test_threshold": float(cut[0]) if len(np.unique(rows.fold)) == 1 else np.nan,
    }
    if len(test) > 1:
        found["within"] = {
            site: roc.auc(part.rows.label, part.rows.score, part.rows.clusters, part.rows.fold)
            for site in sorted(test)
            for part in [model.on(frozenset([site]))]
        }
        site_and_fold = pd.DataFrame({"site": here.site, "fold": rows.fold}).groupby(["site", "fold"]).ngroup()
        found["within_sites"] = roc.auc(rows.label, rows.score, rows.clusters, site_and_fold.to_numpy())
        alone = site_score(rows.label, here.site)
        found["site_alone"] = roc.auc(rows.label, alone, rows.clusters, rows.fold)
        gap, p = roc.difference(rows.label, rows.score, alone, rows.clusters, rows.fold)
        found["over_site"] = {**gap, "p": p}
    return found


def site_score(label: Array, site: NDArray[Any]) -> Array:
    """The prevalence of each row's site [n], from these very labels: the best that ranking by site alone can do."""
    names, inverse = np.unique(site.astype(str), return_inverse=True)
    total = np.bincount(inverse, minlength=len(names))
    return np.asarray((np.bincount(inverse, weights=label, minlength=len(names)) / total)[inverse])


def _decisions(rows: Rows, threshold: Array) -> dict[str, Metric]:
    """Accuracy, sensitivity, specificity on all rows; PPV and NPV on the scored ones. NaN where rows lack a threshold.

    An excluded case (infinite score) has been judged wrongly whatever the threshold.
    """
    finite = np.isfinite(rows.score)
    if not len(rows) or np.isnan(threshold[finite]).any() or not finite.any():
        return {name: empty("no frozen threshold", len(rows)) for name in MEASURES}
    called = np.where(finite, rows.score >= np.where(finite, threshold, 0), rows.score > 0)
    positive = rows.label == 1
    among = {
        "accuracy": np.ones(len(rows), dtype=bool),
        "sensitivity": positive,
        "specificity": ~positive,
        "ppv": called & finite,
        "npv": ~called & finite,
    }
    right = called == positive
    return {name: proportion(right[among[name]], rows.clusters[among[name]]) for name in MEASURES}


def _internal_external(models: Sequence[Model], tests: Sequence[Sites]) -> list[dict[str, Any]]:
    """Each model on its own sites against each external test: natural comparisons, on different patients."""
    found = []
    for model in models:
        own = model.on(model.sites)
        for test in _in_order(model, tests):
            if kind_of(model.sites, test) != "external" or not both_classes(own.rows):
                continue
            a, b = own.rows, model.on(test).rows
            gap, p = roc.unpaired(a.label, a.score, b.label, b.score, a.clusters, b.clusters, a.fold, b.fold)
            few = not (enough(a) and enough(b))
            found.append({"trained_on": name_of(model.sites), "test": name_of(test), "few": few, **gap, "p": p})
    return found


def _between_models(models: Sequence[Model], tests: Sequence[Sites]) -> list[dict[str, Any]]:
    """Two models on the cases of a test set that both have judged."""
    found = []
    for one, other in combinations(models, 2):
        for test in sorted(tests, key=_by_size):
            a, b = _common(one.on(test).rows, other.on(test).rows)
            gap, p = roc.difference(a.label, a.score, b.score, a.clusters, a.fold)
            names = {"a": name_of(one.sites), "b": name_of(other.sites), "test": name_of(test)}
            found.append({**names, "few": not enough(a), **gap, "p": p})
    return found


def _common(a: Rows, b: Rows) -> tuple[Rows, Rows]:
    """The cases that stand in both, in the same order. Raises ProbeError where their labels differ."""
    keys = [
        pd.Index(["\n".join(name or "" for name in key) for key in zip(*columns, strict=True)], dtype=object)
        for rows in (a, b)
        for columns in [[texts(rows.table, name) for name in ("image", "part", "fold")]]
    ]
    place = keys[1].get_indexer(keys[0])
    first = a.take(place >= 0)
    order = place[place >= 0]
    second = Rows(b.table.iloc[order], *(getattr(b, name)[order] for name in list(Rows.__dataclass_fields__)[1:]))
    if (differs := first.label != second.label).any():
        image = texts(first.table[differs], "image")[0]
        raise ProbeError(f"{image}: has one label for one model and another for the next; a case has one label")
    return first, second


def _corrected(tests: list[dict[str, Any]], above: str, below: str) -> list[dict[str, Any]]:
    """With p_holm and a verdict: ``above`` where the difference is positive, or "too few" for one."""
    asked = [k for k, test in enumerate(tests) if not test["few"] and np.isfinite(test["p"])]
    adjusted = dict(zip(asked, holm([tests[k]["p"] for k in asked]), strict=True))
    out = []
    for k, test in enumerate(tests):
        p = adjusted.get(k, np.nan)
        verdict = above if test["value"] > 0 else below
        if np.isnan(p):
            verdict = "too few"
        elif p >= 0.05:
            verdict = "no difference shown"
        out.append({**test, "p_holm": p, "verdict": verdict})
    return out
