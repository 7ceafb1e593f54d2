"""The report's tables, as plain rows for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from domainseg.evaluation.tables import STOPS, Rows, labels, texts
from domainseg.reporting.content import Content, record
from domainseg.reporting.words import (
    CLASSES,
    COLUMNS,
    METRICS,
    QUESTIONS,
    STAGES,
    TITLES,
    interval,
    method,
    number,
    stage_title,
    title,
)

_KEY = {
    "localizer": ("within_5mm", "within_6pct", "head_error_mm_median", "head_error_pct_median"),
    "location": ("accuracy",),
    "fracture": ("auc", "auc_pooled", "sensitivity", "specificity", "accuracy", "ppv", "npv", "pointing_hit"),
}
_KEY_OTHERS = ("auc", "auc_pooled", "sensitivity", "specificity")
_GROUP: dict[str, tuple[str, ...]] = {"localizer": ("within_5mm", "within_6pct"), "location": ("accuracy",)}
_GROUP_OTHERS = ("auc", "sensitivity", "specificity")
_CALIBRATION = ("calibration_in_the_large", "calibration_slope", "calibration_intercept", "ece", "brier")
_ENOUGH_TEST = 40


def key_figures(content: Content) -> list[dict[str, Any]]:
    """One block a target: its title, the question it answers, and rows of metric, intention, conditional, n, method."""
    blocks = []
    for target, metrics in content.results.items():
        rows = []
        for name in _KEY.get(target, _KEY_OTHERS):
            intention, conditional = record(metrics, "intention", name), record(metrics, name)
            first = intention if intention is not None and number(intention["value"]) != "–" else conditional
            if first is None or all(number(m["value"]) == "–" for m in (intention, conditional) if m):
                continue
            digits = 2 if name.endswith("median") else 3
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
    results, said = content.results, []
    area = record(results, main, "intention", "auc")
    if area is not None and number(area["value"]) != "–":
        unit = "hips" if main == "fracture" else "cases"
        said.append(
            f"Judged on intention, on all {area['n']} eligible {unit} of {area['n_clusters']} patients in the "
            f"{content.split} split, the area under the ROC curve for {title(main, TITLES).lower()} is "
            f"{interval(area)}."
        )
    sensitivity, specificity = (record(results, main, "intention", n) for n in ("sensitivity", "specificity"))
    if sensitivity is not None and specificity is not None and number(sensitivity["value"]) != "–":
        said.append(
            f"At the threshold frozen on tune, sensitivity is {interval(sensitivity)} and specificity "
            f"{interval(specificity)}."
        )
    coverage = record(results, main, "coverage")
    if coverage is not None and number(coverage["value"]) != "–":
        said.append(f"The cascade gave a score to {100 * coverage['value']:.1f} % of the cases it should have scored.")
    location = record(results, "location", "accuracy")
    if location is not None and number(location["value"]) != "–":
        said.append(f"Of the fractures found, {interval(location)} were placed rightly (intra- or extra-capsular).")
    return said


def warnings(content: Content) -> list[str]:
    """What a reader must know before trusting the figures."""
    out = []
    for threshold in content.thresholds:
        stage = stage_title(str(threshold["stage"]))
        if threshold.get("provisional"):
            out.append(
                f"{stage}: the threshold is provisional; it was chosen on {threshold.get('n_positive', 'few')} tune "
                "cases of the class it must keep (fewer than 40)."
            )
        if threshold.get("reached") is False and threshold.get("n_positive"):
            out.append(
                f"{stage}: no threshold keeps what the rule asks for on tune; too many cases were excluded before."
            )
    for target, metrics in content.results.items():
        name = title(target, TITLES)
        area, prevalence = record(metrics, "auc"), record(metrics, "prevalence")
        if prevalence is not None and prevalence["n"]:
            positives = round(float(prevalence["value"]) * prevalence["n"])
            fewer = min(positives, prevalence["n"] - positives)
            if fewer < _ENOUGH_TEST and target != "localizer":
                which = CLASSES.get(target, ("negative", "positive"))[int(positives == fewer)]
                out.append(f"{name}: only {fewer} scored cases of the class “{which}”; read the intervals.")
        if area is not None and area["method"].startswith("degenerate"):
            out.append(f"{name}: the AUC is {number(area['value'])} on these cases; its interval is an exact bound.")
        lost, kept = (record(metrics, f"false_exclusion_{side}") for side in ("positive", "negative"))
        if lost and kept and lost["n"] and kept["n"] and (lost["low"] or 0) > (kept["high"] or 1):
            out.append(
                f"{name}: positives are wrongly excluded more often than negatives; the scored cases are selected."
            )
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
    """Rows of stage, value, rule, where chosen, cases, what it kept, specificity, remark."""
    rows = []
    for t in content.thresholds:
        remarks = ["provisional"] if t.get("provisional") else []
        remarks += ["rule not reached"] if t.get("reached") is False else []
        rows.append(
            {
                "stage": stage_title(str(t["stage"])),
                "value": number(t.get("value"), 4),
                "rule": str(t.get("rule", "–")).replace("_", " "),
                "chosen_on": str(t.get("chosen_on", "–")),
                "cases": f"{t.get('n_positive', '–')} / {t.get('n_negative', '–')}",
                "kept": number(t.get("kept")),
                "specificity": number(t.get("specificity")),
                "remark": ", ".join(remarks) or "frozen",
            }
        )
    return rows


def calibration_rows(content: Content) -> list[dict[str, Any]]:
    """One row a target of calibration figures, conditional on being scored."""
    targets = [target for target in content.results if record(content.results, target, "brier")]
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
    for stage in ("read", *STOPS):
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
        "films": len(set(image[left])),
        "left": {side: int((left & mask).sum()) for side, mask in sides.items()},
        "taken": {side: int((taken & mask).sum()) for side, mask in sides.items()},
        "wrong": {side: int((wrong & mask).sum()) for side, mask in sides.items()},
    }


def group_rows(content: Content, target: str) -> list[dict[str, Any]]:
    """Rows of column, group, n, and figures on intention for one target's groups."""
    names = _GROUP.get(target, _GROUP_OTHERS)
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
            }
        )
    if target == "localizer" and all(row["cells"][0] == "–" for row in rows):
        rows = [{**row, "cells": row["cells"][1:]} for row in rows]
    return rows


def group_heads(target: str, rows: list[dict[str, Any]]) -> list[str]:
    """Headings of the figures in ``group_rows``."""
    names = _GROUP.get(target, _GROUP_OTHERS)
    heads = [METRICS[name] for name in names]
    return heads[-len(rows[0]["cells"]) :] if rows else heads


def groups(content: Content, target: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(column, group, metrics on intention) of a target."""
    for column, members in content.results.get(target, {}).get("intention", {}).get("by", {}).items():
        for group, metrics in members.items():
            yield column, group, metrics


_PATHS = ("root", "path", "targets", "folder")  # where files lie on somebody's disk is nobody else's business
_CONFIG = ("predictions", "pipeline", "target", "rois", "seed", "only", "data", "trainer")


def facts(content: Content) -> list[tuple[str, str]]:
    """What was trained on what: the lines of config and environment that a reader asks for first."""
    out = [("run", content.name)]
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
    """Patients, films and cases of each split, with positives of the main target."""
    if content.table is None or content.main is None:
        return []
    names = np.array([name or "test" for name in texts(content.table, "split")], dtype=object)
    truth, image = labels(content.table, content.main), texts(content.table, "image")
    people = texts(content.table, "patient")
    rows = []
    for split in dict.fromkeys(["train", "tune", "test", *names]):
        mask = names == split
        if mask.any():
            rows.append(
                {
                    "split": split,
                    "patients": len({name for name in people[mask] if name}) or "–",
                    "films": len(set(image[mask])),
                    "positive": int((truth[mask] == 1).sum()),
                    "negative": int((truth[mask] == 0).sum()),
                    "unknown": int(np.isnan(truth[mask]).sum()),
                }
            )
    return rows
