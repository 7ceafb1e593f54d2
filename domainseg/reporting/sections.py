"""The report's tables, as plain rows for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from domainseg.evaluation.tables import STOPS, Rows, clusters_of, labels, texts
from domainseg.imaging.chest import FINDINGS
from domainseg.imaging.hemorrhage import TYPES
from domainseg.reporting.content import Content, record
from domainseg.reporting.sections_findings import provisional_findings, training_began
from domainseg.reporting.words import (
    CLASSES,
    COLUMNS,
    METRICS,
    QUESTIONS,
    STAGES,
    TITLES,
    interval,
    known,
    method,
    number,
    several,
    stage_title,
    title,
)

_KEY_OTHERS = ("auc", "auc_pooled", "sensitivity", "specificity")
_KEY_MAIN = (*_KEY_OTHERS, "accuracy", "ppv", "npv")
_KEY: dict[str, tuple[str | tuple[str, ...], ...]] = {  # metrics, or the keys that lead to them
    "localizer": ("within_5mm", "within_6pct", "head_error_mm_median", "head_error_pct_median"),
    "location": ("accuracy",),
    "fracture": (*_KEY_MAIN, "pointing_hit"),
    "findings": ("auc_mean",),
    **dict.fromkeys(FINDINGS, _KEY_MAIN),
    "hemorrhage": (
        *_KEY_MAIN,
        "dice",
        "volume_r",
        "volume_bias",
        "called_without_lesion",
        "false_lesions_per_normal",
        "lesion_sensitivity",
        *(("froc", f"at_{rate}") for rate in ("0.25", "1", "4")),
    ),
}
_VOLUMES = (("volume_r",), ("false_lesions_per_normal",), ("froc", "at_1"))
_GROUP: dict[str, tuple[str, ...]] = {"localizer": ("within_5mm", "within_6pct"), "location": ("accuracy",)}
_GROUP_OTHERS = ("auc", "sensitivity", "specificity")
_GROUP_VOLUMES = ("dice", "volume_r")
_CALIBRATION = ("calibration_in_the_large", "calibration_slope", "calibration_intercept", "ece", "brier")
_ENOUGH_TEST = 40


def key_figures(content: Content) -> list[dict[str, Any]]:
    """One block a target: its title, the question it answers, and rows of metric, intention, conditional, n, method.

    The types of hemorrhage and the findings of chest films have tables of their own.
    """
    blocks = []
    for target, metrics in content.results.items():
        if target in TYPES and "hemorrhage" in content.results:
            continue
        if target in FINDINGS and target != content.main and "findings" in content.results:
            continue
        rows = []
        for key in _KEY.get(target, _KEY_OTHERS):
            path = (key,) if isinstance(key, str) else key
            name = path[-1]
            intention, conditional = record(metrics, "intention", *path), record(metrics, *path)
            first = intention if intention is not None and known(intention) else conditional
            if first is None or not (known(intention) or known(conditional)):
                continue
            digits = 2 if name.endswith(("median", "bias", "normal")) else 3
            rows.append(
                {
                    "name": METRICS.get(name, name),
                    "intention": interval(intention, digits),
                    "conditional": interval(conditional, digits),
                    "n": first["n"],
                    "patients": first["n_clusters"],
                    "method": method(first["method"]),
                }
            )
        if rows:
            blocks.append({"title": title(target, TITLES), "question": QUESTIONS.get(target, ""), "rows": rows})
    return blocks


def brief(content: Content) -> list[str]:
    """The result in three or four sentences."""
    main = content.main
    if main is None:
        return []
    results, said, words = content.results, [], content.nouns
    area, name = record(results, main, "intention", "auc"), title(main, TITLES).lower()
    sensitivity, specificity = (record(results, main, "intention", n) for n in ("sensitivity", "specificity"))
    if area is not None and known(area):
        said.append(
            f"Judged on intention, on all {several(area['n'], f'eligible {words.case}', f'eligible {words.cases}')} "
            f"of {several(area['n_clusters'], 'patient', 'patients')} in the {content.split} split, the area under "
            f"the ROC curve for {name} is {interval(area)}."
        )
    elif area is not None:
        said.append(_no_area(content, main))
    at = [
        f"{what} is {interval(metric)}"
        for what, metric in (("sensitivity", sensitivity), ("specificity", specificity))
        if known(metric)
    ]
    if at:
        frozen = "frozen on tune" if content.thresholds else "that the table gives"
        said.append(f"At the threshold {frozen}, {' and '.join(at)}.")
    mean = record(results, "findings", "intention", "auc_mean")
    if mean is not None and known(mean):
        said.append(f"The mean of the findings' areas under the curve is {interval(mean)}.")
    coverage = record(results, main, "coverage")
    if coverage is not None and number(coverage["value"]) != "–":
        said.append(f"The cascade gave a score to {100 * coverage['value']:.1f} % of the cases it should have scored.")
    location = record(results, "location", "accuracy")
    if location is not None and number(location["value"]) != "–":
        said.append(f"Of the fractures found, {interval(location)} were placed rightly (intra- or extra-capsular).")
    return said + _brief_of_volumes(results.get(main, {}))


def _no_area(content: Content, main: str) -> str:
    """Why there is no area under the curve: which class has no case to judge."""
    words, classes = content.nouns, CLASSES.get(main, ("negative", "positive"))
    counts = [record(content.results, main, "intention", name) for name in ("specificity", "sensitivity")]
    none = [name for name, metric in zip(classes, counts, strict=True) if metric is None or not metric["n"]]
    told = several(sum(metric["n"] for metric in counts if metric), f"eligible {words.case}", f"eligible {words.cases}")
    missing = f"; there is none of the class {' or '.join(f'“{name}”' for name in none)}" if none else ""
    return (
        f"The {content.split} split holds {told}{missing}: no area under the ROC curve for "
        f"{title(main, TITLES).lower()} can be given."
    )


def _brief_of_volumes(metrics: Mapping[str, Any]) -> list[str]:
    of = [record(metrics, "intention", *path) or record(metrics, *path) for path in _VOLUMES]
    said = (
        "volumes correlate with the true ones at r = {}",
        "a normal exam has {} false lesions",
        "{} of the true lesions are found where one false lesion a scan is accepted",
    )
    told = "; ".join(text.format(interval(metric, 2)) for text, metric in zip(said, of, strict=True) if known(metric))
    return [f"{told[0].upper()}{told[1:]}."] if told else []


def warnings(content: Content) -> list[str]:
    """What a reader must know before trusting the figures."""
    out = []
    for threshold in content.thresholds:
        stage = stage_title(str(threshold["stage"]))
        if threshold.get("provisional"):
            out.append(
                f"{stage}: the threshold is provisional; it was chosen on "
                f"{several(threshold.get('n_positive', 'few'), 'tune case', 'tune cases')} of the class it must keep "
                "(fewer than 40)."
            )
        if threshold.get("reached") is False and threshold.get("n_positive"):
            out.append(
                f"{stage}: no threshold keeps what the rule asks for on tune; too many cases were excluded before."
            )
        out += provisional_findings(stage, threshold)
    few = []
    for target, metrics in content.results.items():
        name = title(target, TITLES)
        area, prevalence = record(metrics, "auc"), record(metrics, "prevalence")
        if prevalence is not None and prevalence["n"]:
            positives = round(float(prevalence["value"]) * prevalence["n"])
            fewer = min(positives, prevalence["n"] - positives)
            if target in TYPES or (target in FINDINGS and target != content.main):
                few += [f"{name.lower()} {positives}"] if positives < _ENOUGH_TEST else []
            elif fewer < _ENOUGH_TEST and target != "localizer":
                which = CLASSES.get(target, ("negative", "positive"))[int(positives == fewer)]
                told = several(fewer, "scored case", "scored cases")
                out.append(f"{name}: only {told} of the class “{which}”; read the intervals.")
        if area is not None and area["method"].startswith("degenerate"):
            out.append(f"{name}: the AUC is {number(area['value'])} on these cases; its interval is an exact bound.")
        lost, kept = (record(metrics, f"false_exclusion_{side}") for side in ("positive", "negative"))
        if lost and kept and lost["n"] and kept["n"] and (lost["low"] or 0) > (kept["high"] or 1):
            out.append(
                f"{name}: positives are wrongly excluded more often than negatives; the scored cases are selected."
            )
    nothing = record(content.results, "hemorrhage", "called_without_lesion")
    if nothing is not None and nothing["n"] and nothing["value"]:
        out.append(
            f"Hemorrhage: of the {nothing['n']} exams called, {round(nothing['value'] * nothing['n'])} have no lesion "
            "that is called: nothing is outlined in them, 0 ml are measured, and they count as no false lesion."
        )
    if few:
        what = "exams of some types" if "hemorrhage" in content.results else "films with some findings"
        out.append(f"Few scored {what} ({', '.join(few)}); read their intervals.")
    rules = {str(t["stage"]): str(t.get("rule", "")) for t in content.thresholds if not t.get("provisional")}
    for target, rule in rules.items():
        reached = record(content.results, target, "sensitivity")
        aim = rule.rsplit("_", 1)[-1]
        if reached is None or number(reached["value"]) == "–" or not aim.startswith("0."):
            continue
        if reached["high"] is not None and reached["high"] < float(aim):
            out.append(
                f"{title(target, TITLES)}: the threshold kept {aim} of the positives on tune, and on test "
                f"{interval(reached)} of the scored ones: the operating point has moved."
            )
    return out


def thresholds(content: Content) -> list[dict[str, str]]:
    """Rows of stage, value, rule, where chosen, cases, what it kept, specificity, remark.

    A stage that calls types or findings has a row for each behind its own.
    """
    rows = []
    for t in content.thresholds:
        numbers = t.get("numbers") or {}
        of = f", {numbers['target']}" if "target" in numbers else ""
        rows.append(_threshold_row(f"{t['stage']}{of}", t))
        more = {**numbers.get("types", {}), **numbers.get("findings", {})}
        rows += [_threshold_row(f"{t['stage']}, {name}", one) for name, one in more.items()]
    return rows


def _threshold_row(stage: str, t: Mapping[str, Any]) -> dict[str, str]:
    remarks = ["provisional"] if t.get("provisional") else []
    remarks += ["rule not reached"] if t.get("reached") is False else []
    return {
        "stage": stage_title(stage),
        "value": number(t.get("value"), 4),
        "rule": str(t.get("rule", "–")).replace("_", " "),
        "chosen_on": str(t.get("chosen_on", "–")),
        "cases": f"{t.get('n_positive', '–')} / {t.get('n_negative', '–')}",
        "kept": number(t.get("kept")),
        "specificity": number(t.get("specificity")),
        "remark": ", ".join(remarks) or "frozen",
    }


def calibration_rows(content: Content) -> list[dict[str, Any]]:
    """One row a target of calibration figures, conditional on being scored; scores of types are no probabilities."""
    targets = [name for name in content.results if name not in TYPES and record(content.results, name, "brier")]
    return [
        {
            "title": title(target, TITLES),
            "cells": [
                interval(record(content.results, target, name), 2 if "cal" in name else 3) for name in _CALIBRATION
            ],
        }
        for target in targets
        if number(content.results[target]["brier"]["value"]) != "–"
    ]


def comparisons(content: Content) -> list[dict[str, Any]]:
    """Rows of comparisons.json: what is compared, both AUCs, their difference with interval, p."""
    return [
        {
            "title": item["title"],
            **{key: interval(item[key]) for key in ("a", "b", "difference")},
            "p": "< 0.001" if item["p"] is not None and item["p"] < 0.001 else number(item["p"]),
            "n": item["difference"]["n"],
            "patients": item["difference"]["n_clusters"],
            "method": method(item["difference"]["method"]),
        }
        for item in content.comparisons
    ]


CALIBRATION_HEADS = [METRICS[name] for name in _CALIBRATION]


def waterfall(rows: Rows, target: str) -> list[dict[str, Any]]:
    """How many cases are left after each stage, by label, and how many of those it took should have stayed.

    A case should have stayed when no known truth says that this stage, or one before it, had to exclude it.
    """
    by = np.array([name or "" for name in rows.excluded_by], dtype=object)
    sides = {"positive": rows.label == 1, "negative": rows.label == 0, "unknown": np.isnan(rows.label)}
    image, left = texts(rows.table, "image"), np.ones(len(rows), dtype=bool)
    out = [_step("All", left, np.zeros(len(rows), dtype=bool), left, sides, image)]
    due = np.zeros(len(rows), dtype=bool)
    here = [stage for stage in STOPS if stage in by or f"score_{stage}" in rows.table]
    for stage in ("read", *here):
        if stage in STOPS:
            due |= labels(rows.table, stage) == STOPS[stage]
        if stage == target:
            break
        taken = by == stage
        left = left & ~taken
        out.append(_step(STAGES.get(stage, stage), left, taken, taken & ~due, sides, image))
    return out


def _step(name: str, left: Any, taken: Any, wrong: Any, sides: Mapping[str, Any], image: Any) -> dict[str, Any]:
    return {
        "name": name,
        "images": len(set(image[left])),
        "left": {side: int((left & mask).sum()) for side, mask in sides.items()},
        "taken": {side: int((taken & mask).sum()) for side, mask in sides.items()},
        "wrong": {side: int((wrong & mask).sum()) for side, mask in sides.items()},
    }


def group_rows(content: Content, target: str) -> list[dict[str, Any]]:
    """Rows of column, group, n, and figures on intention with their headings for one target's groups."""
    there = [metrics for _, _, metrics in groups(content, target)]
    volumes = tuple(name for name in _GROUP_VOLUMES if any(known(record(metrics, name)) for metrics in there))
    names = _GROUP.get(target, _GROUP_OTHERS) + volumes
    rows: list[dict[str, Any]] = []
    for column, group, metrics in groups(content, target):
        records = [record(metrics, name) for name in names]
        shown = [metric for metric in records if metric is not None]
        if not shown:
            continue
        rows.append(
            {
                "column": COLUMNS.get(column, title(column, {})),
                "group": group.replace("_", " "),
                "n": max(metric["n"] for metric in shown),
                "patients": max(metric["n_clusters"] for metric in shown),
                "positives": positives["n"] if (positives := record(metrics, "sensitivity")) else "–",
                "cells": [interval(metric) for metric in records],
                "heads": [METRICS[name] for name in names],
            }
        )
    if target == "localizer" and all(row["cells"][0] == "–" for row in rows):
        rows = [{**row, "cells": row["cells"][1:], "heads": row["heads"][1:]} for row in rows]
    return rows


def group_heads(target: str, rows: list[dict[str, Any]]) -> list[str]:
    """Headings of the figures in ``group_rows``."""
    return list(rows[0]["heads"]) if rows else [METRICS[name] for name in _GROUP.get(target, _GROUP_OTHERS)]


def groups(content: Content, target: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(column, group, metrics on intention) of a target."""
    for column, members in content.results.get(target, {}).get("intention", {}).get("by", {}).items():
        for group, metrics in members.items():
            yield column, group, metrics


_PATHS = ("root", "path", "targets", "folder")  # where files lie on somebody's disk is nobody else's business
_CONFIG = ("predictions", "pipeline", "target", "rois", "seed", "only", "data", "trainer")


def facts(content: Content) -> list[tuple[str, str]]:
    """What was trained on what: the lines of config and environment that a reader asks for first."""
    out = [("run", content.name), *training_began(content)]
    for source, keys in ((content.config, _CONFIG), (content.environment, tuple(content.environment))):
        for key in keys:
            value = _plain(source.get(key))
            if value and (key, value) not in out:
                out.append((key, value))
    return out


def _plain(value: Any) -> str:
    """A setting in one line: mappings as "a 1, b 2", long hashes cut to twelve digits, nothing for None."""
    if value is None or value == "" or value == [] or value == {}:
        return ""
    if isinstance(value, Mapping):
        inner = [
            (str(key), _plain(item))
            for key, item in value.items()
            if not str(key).startswith("_") and key not in _PATHS
        ]
        return ", ".join(f"{key} ({text})" if ", " in text else f"{key} {text}" for key, text in inner if text)
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    text = str(value)
    return text[:12] if len(text) == 64 and text.isalnum() else text


def splits(content: Content) -> list[dict[str, Any]]:
    """Patients, films or exams, and cases of each split, with positives of the main target."""
    if content.table is None or content.main is None:
        return []
    names = np.array([name or "test" for name in texts(content.table, "split")], dtype=object)
    truth, image = labels(content.table, content.main), texts(content.table, "image")
    told = [texts(content.table, name) for name in ("patient", "group")]
    people = clusters_of(content.table)
    rows = []
    for split in dict.fromkeys(["train", "tune", "test", *names]):
        mask = names == split
        if mask.any():
            rows.append(
                {
                    "split": split,
                    "patients": len(set(people[mask])) if any(name for names in told for name in names[mask]) else "–",
                    "images": len(set(image[mask])),
                    "positive": int((truth[mask] == 1).sum()),
                    "negative": int((truth[mask] == 0).sum()),
                    "unknown": int(np.isnan(truth[mask]).sum()),
                }
            )
    return rows
