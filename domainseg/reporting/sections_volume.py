"""The report's tables that only volumes have: types of hemorrhage, false lesions by look-alike, printed figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from domainseg.evaluation import Metric, proportion
from domainseg.evaluation.lesions import exam_of
from domainseg.evaluation.published import PRINTED
from domainseg.evaluation.tables import clusters_of, numbers, rows_of, texts
from domainseg.imaging.hemorrhage import MIMICS, TYPES
from domainseg.reporting import figures_volume
from domainseg.reporting.content import Content, record
from domainseg.reporting.words import METRICS, TITLES, interval, known, title

_BY_TYPE = ("auc", "sensitivity", "lesion_sensitivity", "dice", "surface_mm", "volume_r")
_OF_MASKS = ("dice", "surface_mm", "volume_r")
_BALANCED = ("accuracy", "sensitivity", "specificity", "dice", "volume_r_all")


def type_rows(content: Content) -> dict[str, Any] | None:
    """Heads and one row a type, the whole first: title, number of exams that have it, figures; None for films."""
    if not set(TYPES) & set(content.results):
        return None
    return _rows(content, _BY_TYPE)


def balanced_rows(content: Content) -> dict[str, Any] | None:
    """The same for sets of as many exams with it as without, drawn at random; None where there are none."""
    balanced = {
        target: {"intention": metrics["intention"]["balanced"]}
        for target, metrics in content.results.items()
        if "balanced" in metrics.get("intention", {})
    }
    return _rows(replace(content, metrics={content.split: balanced}), _BALANCED) if balanced else None


def _rows(content: Content, names: Sequence[str]) -> dict[str, Any]:
    rows = []
    for target in ("hemorrhage", *TYPES, "extra_axial"):
        metrics = content.results.get(target, {})
        found = [record(metrics, "intention", name) for name in names]
        if not any(found):
            continue
        have = record(metrics, "intention", "sensitivity") or record(metrics, "intention", "dice")
        cells = [_cell(name, metric, have) for name, metric in zip(names, found, strict=True)]
        rows.append({"title": title(target, TITLES), "n": have["n"] if have else "–", "cells": cells})
    return {"heads": [METRICS[name] for name in names], "rows": rows}


def _cell(name: str, metric: Metric | None, have: Metric | None) -> str:
    """A figure, with its n where it is one of exams that have it, as only masks give it, and the table's are more."""
    text = interval(metric, 2)
    if name in _OF_MASKS and metric is not None and have is not None and metric["n"] != have["n"]:
        return f"{text}, n {metric['n']}"
    return text


def size_rows(content: Content) -> list[tuple[str, int, str]]:
    """Size of true lesions, their number, and the fraction found."""
    sizes = content.results.get("hemorrhage", {}).get("intention", {}).get("lesion_sensitivity_by_size", {})
    return [(name, metric["n"], interval(metric, 2)) for name, metric in sizes.items()]


def part(content: Content, table: pd.DataFrame | None) -> pd.DataFrame | None:
    """The rows of the reported split; of the lesion table those of its exams."""
    if table is None or content.table is None:
        return None
    split = np.array([name or "test" for name in texts(content.table, "split")], dtype=object)
    exams = content.table[split == content.split]
    return exams if table is content.table else table[exam_of(exams, table) >= 0]


def mimic_rows(content: Content) -> list[dict[str, Any]]:
    """One row a look-alike: exams with it, false lesions at it, exams with such a lesion; then those elsewhere.

    Exams whose lesions nobody can tell from false ones (no outlines, not scored) are not counted.
    """
    exams, lesions = part(content, content.table), part(content, content.lesions)
    if exams is None or lesions is None or "mimic" not in exams or "false_lesions" not in exams:
        return []
    exams = exams[~np.isnan(numbers(exams, "false_lesions"))]
    held = {
        image: set((kinds or "").split("+")) - {""}
        for image, kinds in zip(exams["image"], texts(exams, "mimic"), strict=True)
    }
    wrong = false_lesions(lesions)
    at = [kind or "" for kind in texts(wrong, "mimic")]
    named = list(dict.fromkeys([*MIMICS, *sorted(set().union(*held.values()) | set(at))]))
    rows = []
    for kind in [*(kind for kind in named if kind), ""]:
        fooled = {image for image, found in zip(wrong["image"], at, strict=True) if found == kind} & set(held)
        having = exams[[kind in held[image] for image in exams["image"]]] if kind else exams
        if not len(having) and not fooled:
            continue
        hits = having["image"].isin(fooled).to_numpy()
        rows.append(
            {
                "title": title(kind, {}).capitalize() if kind else "None of these",
                "exams": len(having),
                "lesions": sum(found == kind and i in held for i, found in zip(wrong["image"], at, strict=True)),
                "fooled": len(fooled),
                "fraction": interval(proportion(hits, clusters_of(having), resamples=500), 2),
            }
        )
    return rows


def false_lesions(lesions: pd.DataFrame) -> pd.DataFrame:
    """Rows of called lesions that match no true one."""
    called = (texts(lesions, "source") == "predicted") & (numbers(lesions, "called") == 1)
    wrong: pd.DataFrame = lesions[called & (numbers(lesions, "matched") == 0)]
    return wrong


def published(content: Content) -> list[dict[str, Any]]:
    """Figures that others printed beside ours, where we have them: on intention, PPV and NPV of scored exams.

    One block a source and its exams, with rows of name, ours, printed.
    """
    blocks: dict[tuple[str, str], list[dict[str, str]]] = {}
    for printed in PRINTED:
        metrics = content.results.get(printed.target, {})
        ours = record(metrics, "intention", printed.metric) or record(metrics, printed.metric)
        if ours is not None and known(ours):
            name = f"{title(printed.target, TITLES)}: {METRICS[printed.metric]}"
            value = f"{printed.value:.4f}".removesuffix("0")
            exams = f"{printed.exams}; {printed.status}" if printed.status else printed.exams
            blocks.setdefault((printed.source, exams), []).append(
                {"name": name, "ours": interval(ours), "printed": value}
            )
    return [{"source": source, "exams": exams, "rows": rows} for (source, exams), rows in blocks.items()]


def draw(content: Content) -> dict[str, str]:
    """The figures that only volumes have, as SVG text by name."""
    table, metrics = part(content, content.table), content.results.get("hemorrhage", {})
    if table is None or not metrics or not {"label_hemorrhage", "score_hemorrhage"} <= set(table):
        return {}
    rows = rows_of(table, "hemorrhage")
    rows = rows.take(rows.intended)
    out = {}
    if content.lesions is not None and (drawn := figures_volume.froc_curve(rows, content.lesions, metrics)):
        out["froc"] = drawn
    if drawn := figures_volume.volumes(rows, metrics):
        out["volumes"] = drawn
    return out
