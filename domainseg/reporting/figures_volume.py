"""Figures that only volumes have: lesions found against false ones, and measured against true volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from domainseg.evaluation.tables import numbers, texts
from domainseg.reporting.content import record
from domainseg.reporting.figures import INK, MUTED, NEGATIVE, POSITIVE, as_svg, drawing
from domainseg.reporting.words import known, number


def froc(exams: pd.DataFrame, lesions: pd.DataFrame, metrics: Mapping[str, Any]) -> str:
    """Fraction of true lesions found against false lesions a scan; "" where there is nothing to count."""
    judged = exams[~np.isnan(numbers(exams, "false_lesions"))]
    lesions = lesions[lesions["image"].isin(judged["image"])]
    predicted, true = texts(lesions, "source") == "predicted", texts(lesions, "source") == "truth"
    false = predicted & (numbers(lesions, "matched") == 0)
    if not len(judged) or not true.any():
        return ""
    score = numbers(lesions, "score")
    found = np.nan_to_num(score[true], nan=-1.0)
    cuts = np.unique(score[(predicted | true) & ~np.isnan(score)])[::-1]
    x = np.array([(score[false] >= cut).sum() / len(judged) for cut in cuts])
    y = np.array([(found >= cut).mean() for cut in cuts])
    with drawing(1, height=3.4, width=5.2) as (figure, (axis,)):
        axis.step(np.maximum(x, 0.01), y, color=NEGATIVE, linewidth=1.6, where="post")
        for rate in ("0.25", "1", "4"):
            metric = record(metrics, "intention", "froc", f"at_{rate}") or record(metrics, "froc", f"at_{rate}")
            if metric is not None and known(metric):
                if number(metric["low"]) != "–":
                    axis.plot([float(rate)] * 2, [metric["low"], metric["high"]], color=INK, linewidth=1)
                axis.plot(float(rate), metric["value"], "s", color=INK, markersize=4)
        called = numbers(lesions, "called") == 1
        axis.plot(
            max(0.01, (false & called).sum() / len(judged)),
            (numbers(lesions, "matched")[true] == 1).mean(),
            "o",
            color=POSITIVE,
            markersize=6,
            label="frozen threshold",
        )
        axis.set_xscale("log")
        axis.set_xticks([0.01, 0.1, 0.25, 1, 4], ["0.01", "0.1", "0.25", "1", "4"])
        axis.minorticks_off()
        axis.set(xlim=(0.01, 10), ylim=(0, 1.02), xlabel="false lesions a scan", ylabel="true lesions found")
        axis.legend(loc="lower right", handlelength=1.2)
        return as_svg(figure)


def volumes(exams: pd.DataFrame) -> str:
    """Measured against true volume, and difference against mean (Bland and Altman 1986); "" without volumes.

    An excluded exam has measured nothing: 0 ml.
    """
    true, measured = numbers(exams, "true_volume_ml"), numbers(exams, "volume_ml")
    excluded = np.array([bool(stage) for stage in texts(exams, "excluded_by")])
    measured = np.where(excluded & np.isnan(measured), 0.0, measured)
    both = ~np.isnan(true) & ~np.isnan(measured)
    if both.sum() < 2 or not true[both].any():
        return ""
    true, measured = true[both], measured[both]
    difference, mean = measured - true, (measured + true) / 2
    bias, spread = difference.mean(), 1.96 * difference.std(ddof=1)
    top = 1.3 * max(1.0, true.max(), measured.max())
    with drawing(2, height=3.4, width=4.4) as (figure, (left, right)):
        left.plot([0, top], [0, top], color="#d5d8dc", linewidth=0.8)
        left.plot(true, measured, "o", color=NEGATIVE, markersize=3.5, alpha=0.6)
        left.set(xlim=(-0.1, top), ylim=(-0.1, top), xlabel="true volume, ml", ylabel="measured volume, ml")
        _millilitres(left, "xy")
        right.plot(mean, difference, "o", color=NEGATIVE, markersize=3.5, alpha=0.6)
        for value, style, name in (
            (bias, "-", "mean"),
            (bias - spread, ":", ""),
            (bias + spread, ":", "mean ± 1.96 SD"),
        ):
            right.axhline(value, color=INK if style == "-" else MUTED, linestyle=style, linewidth=1)
            said = number(value, 1) + (f"  {name}" if name else "")
            right.annotate(
                said, (1, value), (-2, 3), ("axes fraction", "data"), "offset points", ha="right", fontsize=8
            )
        right.set(xlim=(-0.1, top), xlabel="mean of both, ml", ylabel="measured − true, ml")
        _millilitres(right, "x")
        return as_svg(figure)


def _millilitres(axis: Axes, which: str) -> None:
    """Linear below 1 ml, logarithmic above: bleeds are from under 1 to over 60 ml."""
    for name in which:
        getattr(axis, f"set_{name}scale")("symlog", linthresh=1)
        getattr(axis, f"{name}axis").set_major_formatter("{x:.0f}")
