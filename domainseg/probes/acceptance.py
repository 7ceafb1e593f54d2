"""Acceptance: before a bundle is used at a new place, what its frozen threshold does to local cases.

  python -m domainseg.audit +probe=acceptance bundle=DIR data=manifest data.path=local.csv output=DIR
  python -m domainseg.audit +probe=acceptance bundle=DIR predictions=FILE output=DIR
  python -m domainseg.audit +probe=acceptance bundle=DIR predictions=FILE probe.override=true probe.by=NAME

AUC may hold where the threshold does not: the shift of sensitivity and specificity is tested against the bundle's own
test. Nothing changes by itself: only ``override=true`` with a name writes another bundle, which says what was changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta

from domainseg.bundle.override import override_threshold, overrides_of, threshold_of
from domainseg.bundle.schema import METRICS, parse_json
from domainseg.bundle.verify import Verified, verify_bundle
from domainseg.evaluation import Metric, auc, calibration, proportion
from domainseg.evaluation.intervals import LEVEL, apart, empty, p_apart
from domainseg.evaluation.operating import RULES, choose_threshold, excludes_above
from domainseg.evaluation.tables import Rows, numbers, probable, rows_of, texts
from domainseg.probes.acceptance_page import page_of, short_table
from domainseg.probes.common import FEW, ProbeError, both_classes, read_predictions, target_of, write_results

PRECISIONS = (0.1, 0.05, 0.03, 0.02)
MOST = 20_000  # positives that are searched
CALIBRATION = ("calibration_in_the_large", "calibration_slope")


def run(
    cfg: dict[str, Any],
    output: Path,
    *,
    rule: str = "sensitivity_0.95",
    precision: float = 0.05,
    override: bool = False,
    by: str | None = None,
) -> dict[str, Any]:
    """Write acceptance.json and acceptance.html, and with override=true ``output``/bundle; returns the record.

    Raises ProbeError, EvaluationError and BundleError.
    """
    check(rule, precision, override, by, cfg)
    bundle = verify_bundle(Path(cfg["bundle"])) if cfg["bundle"] else None
    if cfg["predictions"]:
        table, said = read_predictions(cfg)
    else:
        table, said = predicted(cfg, output)
    target = str(bundle.record["target"]) if bundle and cfg["target"] is None else target_of(cfg, table)
    table = with_threshold(table, target, bundle)
    if override and bundle:
        check_origin(table, target, bundle)
    record = accepted(table, target, rule, precision, bundle, resamples=int(cfg["resamples"])) | {"said": said}
    record["override"] = _override(record, bundle, by, output) if override and bundle else None
    write_results(output, "acceptance", record, page_of(record), short_table(record))
    return record


def check(rule: str, precision: float, override: bool, by: str | None, cfg: Mapping[str, Any]) -> None:
    """Raise ProbeError for settings that do not fit together."""
    if not cfg["predictions"] and not (cfg["bundle"] and cfg.get("data")):
        raise ProbeError("local cases are needed: predictions=FILE, or bundle=DIR data=manifest data.path=local.csv")
    if rule not in RULES:
        raise ProbeError(f"probe.rule={rule}: known are {', '.join(RULES)}")
    if not 0 < float(precision) < 0.5:
        raise ProbeError(f"probe.precision={precision}: a distance in sensitivity, above 0 and below 0.5")
    if override and not cfg["bundle"]:
        raise ProbeError("probe.override=true changes a bundle: name it with bundle=DIR")
    if override and not (by or "").strip():
        raise ProbeError('probe.override=true: say who decides it, probe.by="A. Name"')


def predicted(cfg: Mapping[str, Any], output: Path) -> tuple[pd.DataFrame, list[str]]:
    """Predictions by the bundle of the films of ``data=`` that it has not learned from, with their labels.

    Also written to ``output``. And, for people, which films they are.
    """
    from domainseg.bundle.load import load_bundle
    from domainseg.bundle.predict import predict_manifest
    from domainseg.cascade.reads import reading_of
    from domainseg.cascade.table import write_table
    from domainseg.data.privacy import patient_key
    from domainseg.probes.common import check_output
    from domainseg.probes.held_out import unseen

    check_output(output)
    bundle = load_bundle(cfg["bundle"])
    manifest, origin = unseen(cfg, bundle.record)
    truth = reading_of(bundle.stages).truth(manifest)
    table = predict_manifest(bundle.stages, manifest, truth, patient_key(None, output))
    table["bundle_sha256"] = bundle.sha256
    write_table(table, output)
    return table, [origin]


def with_threshold(table: pd.DataFrame, target: str, bundle: Verified | None) -> pd.DataFrame:
    """The table with threshold_<target>; the bundle's in cells without one. Raises ProbeError where they differ."""
    name = f"threshold_{target}"
    if bundle is None:
        if name not in table:
            raise ProbeError(f"the table has no {name}: there is no frozen threshold to judge; name the bundle=DIR")
        return table
    if "bundle_sha256" in table and set(texts(table, "bundle_sha256")) - {None, bundle.sha256}:
        raise ProbeError("the table was predicted with another bundle (bundle_sha256): predict again with this one")
    frozen = threshold_of(bundle.record, target)
    given = numbers(table, name)
    if not np.allclose(given[~np.isnan(given)], frozen, rtol=1e-6):
        raise ProbeError(f"{name} of the table is not the bundle's, {frozen:g}: the table is of another model")
    return table.assign(**{name: np.where(np.isnan(given), frozen, given)})


def check_origin(table: pd.DataFrame, target: str, bundle: Verified) -> None:
    """Raise ProbeError where a score is not said to be the bundle's: its threshold would be set on another's scores."""
    scored = ~np.isnan(numbers(table, f"score_{target}"))
    if strange := int((texts(table, "bundle_sha256")[scored] != bundle.sha256).sum()):
        raise ProbeError(
            f"probe.override=true: {strange} of {int(scored.sum())} scored rows do not name this bundle in "
            "bundle_sha256. Predict with this bundle first (`python -m domainseg.predict bundle=...`) and add the "
            "labels to its table, or give the films with data="
        )


def accepted(
    table: pd.DataFrame, target: str, rule: str, precision: float, bundle: Verified | None, *, resamples: int = 2000
) -> dict[str, Any]:
    """All that acceptance measures, as plain nested dicts.

    local and own: metrics here and in the bundle's test, on intention where stages exclude; shift: local minus own with
    a test. needed: positives for a local threshold, by precision. threshold: the local one, what chose and judged it.
    """
    split = texts(table, "split")
    divided = bool((split == "tune").any())
    tested = np.array([name in (None, "test") for name in split], dtype=bool)
    rows = _judged(table[tested], target)
    choosing = _judged(table[split == "tune"], target) if divided else rows
    if not both_classes(rows):
        raise ProbeError(f"label_{target}: one class only among {len(rows)} local cases; both are needed")
    scored = np.isfinite(rows.score)
    if (lost := int(np.isnan(rows.threshold[scored]).sum())) or np.isnan(rows.threshold).all():
        raise ProbeError(
            f"threshold_{target}: empty in {lost} of {int(scored.sum())} scored cases, so there is no call to judge; "
            "fill it, or name the bundle=DIR"
        )
    few = {name: int((rows.label == side).sum()) for name, side in (("positive", 1), ("negative", 0))}
    local = _local(rows, rows_of(table[tested], target), resamples)
    own = _own(bundle, target, intention=bool(any(rows.excluded_by)))
    shift = {name: shifted(local[name], own[name]) for name in local if name in own}
    on = "local cases of the tune split" if divided else "all local cases"
    chosen = choose_threshold(choosing.label, choosing.score, rule, chosen_on=on)
    record: dict[str, Any] = {
        "target": target,
        "bundle": None if bundle is None else {"sha256": bundle.sha256, "overrides": overrides_of(bundle.record)},
        "n": len(rows),
        **few,
        "excluded": int(np.isinf(rows.score).sum()),
        "frozen_threshold": float(np.nanmax(rows.threshold)),
        "local": local,
        "own": own,
        "shift": shift,
        "precision": precision,
        "needed": [_needed(rule, at, float((rows.label == 1).mean())) for at in sorted({*PRECISIONS, precision})[::-1]],
        "threshold": {
            **chosen.to_dict(),
            "judged_on": "local cases of the test split" if divided else "the cases that chose it, which flatters it",
            "judged": _at(rows, np.full(len(rows), chosen.value)),
            "future_sensitivity": _future(chosen.n_positive, rule),
        },
    }
    record["verdict"] = _verdict(record)
    return record


def _judged(table: pd.DataFrame, target: str) -> Rows:
    rows = rows_of(table, target)
    return rows.judged() if any(rows.excluded_by) else rows.take(rows.scored)


def _local(rows: Rows, all_rows: Rows, resamples: int) -> dict[str, Metric]:
    """AUC and operating point of the judged rows, calibration of all scored ones, as metrics.json has them."""
    found = {"auc": auc(rows.label, rows.score, rows.clusters, rows.fold), **_at(rows, rows.threshold)}
    scored = all_rows.take(all_rows.scored)
    if probable(scored.score):
        scores = calibration(scored.label, scored.score, scored.clusters, resamples=min(resamples, 500))
        found |= {name: scores[name] for name in CALIBRATION}
    return found


def _at(rows: Rows, threshold: Any) -> dict[str, Metric]:
    """Sensitivity and specificity at thresholds [n]; an excluded case was judged wrongly."""
    called = np.where(np.isfinite(rows.score), rows.score >= threshold, rows.score > 0)
    positive = rows.label == 1
    return {
        "sensitivity": proportion(called[positive], rows.clusters[positive]),
        "specificity": proportion(~called[~positive], rows.clusters[~positive]),
    }


def _own(bundle: Verified | None, target: str, *, intention: bool) -> dict[str, Metric]:
    """The bundle's own test figures of the same kind; {} without a bundle."""
    if bundle is None:
        return {}
    found = parse_json(bundle.documents[METRICS], METRICS).get("test", {}).get(target, {})
    judged = found.get("intention", {}) if intention else found
    names = {**dict.fromkeys(("auc", "sensitivity", "specificity"), judged), **dict.fromkeys(CALIBRATION, found)}
    out = {}
    for name, holder in names.items():
        if isinstance(entry := holder.get(name), dict) and entry.get("value") is not None:
            low, high = (np.nan if entry.get(key) is None else float(entry[key]) for key in ("low", "high"))
            value, n = float(entry["value"]), int(entry.get("n", 0))
            clusters = int(entry.get("n_clusters", n))
            out[name] = Metric(value=value, low=low, high=high, n=n, n_clusters=clusters, method="bundle's test")
    return out


def shifted(local: Metric, own: Metric) -> dict[str, Any]:
    """local - own of two independent figures, from their intervals: bounds added in quadrature (Newcombe 1998, method
    10; Zou and Donner 2008), p from the same widths (normal); NaN where an interval is missing.
    """
    metric = apart(local, own)
    return {**metric, "p": p_apart(metric) if np.isfinite([metric["low"], metric["high"]]).all() else np.nan}


def positives_needed(rule: str, precision: float) -> int | None:
    """The least number of positives from which on a threshold chosen by ``rule`` keeps its promise for future cases.

    The threshold is an order statistic of the local positives' scores, so that the sensitivity of future positives is
    Beta distributed whatever the scores. Wanted: with probability 95 % no further than ``precision`` from what the rule
    asks. None above 20,000 or where the rule keeps all.
    """
    share = RULES[rule]
    n = np.arange(1, MOST)
    missed = n - np.ceil(share * n - 1e-9)
    held = beta.cdf(share + precision, n - missed, missed + 1) - beta.cdf(share - precision, n - missed, missed + 1)
    if share == 1:
        held = beta.sf(share - precision, n - missed, missed + 1)
    failing = np.flatnonzero(held < LEVEL)
    return None if len(failing) and failing[-1] == len(n) - 1 else int(failing[-1]) + 2 if len(failing) else 1


def _future(positives: int, rule: str) -> Metric:
    """The sensitivity of future positives at a threshold chosen by ``rule`` on so many: mean and 95 % bounds."""
    if positives < 1:
        return empty("no positive")
    missed = positives - int(np.ceil(RULES[rule] * positives - 1e-9))
    a, b = positives - missed, missed + 1
    low, high = (float(beta.ppf(at, a, b)) for at in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Metric(value=a / (a + b), low=low, high=high, n=positives, n_clusters=positives, method="beta")


def _needed(rule: str, precision: float, prevalence: float) -> dict[str, Any]:
    positives = positives_needed(rule, precision)
    cases = None if positives is None else int(np.ceil(positives / prevalence))
    return {"precision": precision, "positives": positives, "cases": cases}


def _verdict(record: Mapping[str, Any]) -> str:
    if min(record["positive"], record["negative"]) < FEW:
        return (
            f"Too few local cases for a verdict: {record['positive']} positive and {record['negative']} negative ones."
        )
    tested = {name: record["shift"][name] for name in ("sensitivity", "specificity") if name in record["shift"]}
    tested = {name: shift for name, shift in tested.items() if np.isfinite(shift["p"])}
    if not tested:
        return "No bundle with test figures was given: local figures stand alone."
    if record["bundle"]["overrides"]:
        return "The bundle's test figures are those of an earlier threshold: shifts say nothing of the one in use."
    worst = 0.05 / len(tested)  # Bonferroni over the two
    moved = [
        f"{name} is {'higher' if shift['value'] > 0 else 'lower'} here by {abs(shift['value']):.3f}"
        for name, shift in tested.items()
        if shift["p"] < worst
    ]
    if moved:
        return f"The operating point has shifted: {' and '.join(moved)} than in the bundle's test."
    return "No shift of the operating point is shown; the intervals say how large one might still be."


def _override(record: Mapping[str, Any], bundle: Verified, by: str | None, output: Path) -> dict[str, Any]:
    """Write the bundle with the local threshold. Raises ProbeError for too few cases and for an unmet rule."""
    chosen = record["threshold"]
    if min(chosen["n_positive"], chosen["n_negative"]) < FEW:
        asked = next(entry for entry in record["needed"] if entry["precision"] == record["precision"])
        raise ProbeError(
            f"probe.override=true: {chosen['n_positive']} positive and {chosen['n_negative']} negative local cases are "
            f"too few for a threshold: {FEW} of each are the least, and a precision of {asked['precision']:g} needs "
            f"{asked['positives'] or f'more than {MOST}'} positives"
        )
    if not chosen["reached"]:
        raise ProbeError(
            f"probe.rule={chosen['rule']}: no threshold reaches it on the local cases, {chosen['kept']:.3f} of the "
            "positives is the most, since earlier stages exclude too many: look at those stages first"
        )
    if not 0 <= chosen["value"] <= 1 or excludes_above(chosen["rule"]):
        raise ProbeError(f"probe.rule={chosen['rule']}: gives no threshold for the calls of {record['target']}")
    kept = ("rule", "n_positive", "n_negative", "kept", "specificity", "provisional", "chosen_on")
    entry = {"threshold": chosen["value"], "by": " ".join(str(by).split()), **{key: chosen[key] for key in kept}}
    sha256 = override_threshold(bundle, record["target"], entry, output / "bundle")
    made = overrides_of(verify_bundle(output / "bundle").record, record["target"])[-1]
    return {"bundle": str(output / "bundle"), "sha256": sha256, **made}
