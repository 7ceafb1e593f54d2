"""Figures that only volumes have: lesions found against false ones, and measured against true volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from domainseg.evaluation.lesions import froc, scans
from domainseg.evaluation.tables import Rows, numbers
from domainseg.reporting.content import record
from domainseg.reporting.figures import INK, MUTED, NEGATIVE, POSITIVE, as_svg, drawing
from domainseg.reporting.words import CLASSES, known, number

_LEAST, _MOST = 0.01, 10.0  # false lesions a scan that are shown


def froc_curve(rows: Rows, lesions: pd.DataFrame, metrics: Mapping[str, Any]) -> str:
    """Fraction of true lesions found against false lesions a scan, on intention; "" where there is nothing to count."""
    rows, found = scans(rows, lesions)
    if not len(found.true):
        return ""
    weights = np.ones((1, len(rows)))
    most = max(1.0, len(found.false) / len(rows))
    rates = np.geomspace(_LEAST, max(_MOST, most), 200)
    rates = rates[rates <= most]
    false_lesions = numbers(rows.table, "false_lesions")
    wrong = np.where(np.isnan(false_lesions), np.isnan(rows.score) & (rows.label == 0), false_lesions)
    called = float(wrong.mean())
    with drawing(1, height=3.4, width=5.2) as (figure, (axis,)):
        found_at = [froc(found, rate)(weights)[0] for rate in rates]
        axis.step(rates, found_at, color=NEGATIVE, linewidth=1.6, where="post")
        for rate in ("0.25", "1", "4"):
            metric = record(metrics, "intention", "froc", f"at_{rate}")
            if metric is not None and known(metric):
                if number(metric["low"]) != "–":
                    axis.plot([float(rate)] * 2, [metric["low"], metric["high"]], color=INK, linewidth=1)
                axis.plot(float(rate), metric["value"], "s", color=INK, markersize=4)
        place = (max(_LEAST, called), found.called.mean())
        axis.plot(*place, "o", color=POSITIVE, markersize=6, label="frozen threshold")
        axis.set_xscale("log")
        axis.set_xticks([_LEAST, 0.1, 0.25, 1, 4], [f"{_LEAST:g}", "0.1", "0.25", "1", "4"])
        axis.minorticks_off()
        axis.set(xlim=(_LEAST, _MOST), ylim=(0, 1.02), xlabel="false lesions a scan", ylabel="true lesions found")
        axis.legend(loc="lower right", handlelength=1.2)
        return as_svg(figure)


def volumes(rows: Rows, metrics: Mapping[str, Any]) -> str:
    """Measured against true volume, and of exams with a bleed difference against mean (Bland and Altman 1986).

    "" without volumes. An excluded exam has measured nothing: 0 ml.
    """
    true, measured = numbers(rows.table, "true_volume_ml"), numbers(rows.table, "volume_ml")
    measured = np.where(np.isnan(rows.score), 0.0, measured)
    both = ~np.isnan(true) & ~np.isnan(measured)
    bleeds = rows.label[both] == 1
    true, measured = true[both], measured[both]
    if not bleeds.any():
        return ""
    top = 1.3 * max(1.0, true.max(), measured.max())
    with drawing(2, height=3.4, width=4.4) as (figure, (left, right)):
        left.plot([0, top], [0, top], color="#d5d8dc", linewidth=0.8)
        for side, marker, color in ((bleeds, "o", POSITIVE), (~bleeds, "s", NEGATIVE)):
            name = f"{CLASSES['hemorrhage'][int(side is bleeds)]} ({side.sum()})"
            left.plot(true[side], measured[side], marker, color=color, markersize=3.5, alpha=0.6, label=name)
        left.set(xlim=(-0.1, top), ylim=(-0.1, top), xlabel="true volume, ml", ylabel="measured volume, ml")
        left.legend(loc="upper left", handlelength=1)
        _millilitres(left, "xy")
        difference, mean = (measured - true)[bleeds], ((measured + true) / 2)[bleeds]
        right.plot(mean, difference, "o", color=POSITIVE, markersize=3.5, alpha=0.6)
        lines = (
            ("volume_bias", "-", "mean"),
            ("volume_limit_low", ":", ""),
            ("volume_limit_high", ":", "mean ± 1.96 SD"),
        )
        for key, style, name in lines:
            metric = record(metrics, "intention", key)
            if metric is None or not known(metric):
                continue
            right.axhline(metric["value"], color=INK if style == "-" else MUTED, linestyle=style, linewidth=1)
            said = number(metric["value"], 1) + (f"  {name}" if name else "")
            place = (1, metric["value"])
            right.annotate(said, place, (-2, 3), ("axes fraction", "data"), "offset points", ha="right", fontsize=8)
        right.set(xlim=(-0.1, top), xlabel="mean of both, ml", ylabel="measured − true, ml")
        _millilitres(right, "x")
        return as_svg(figure)


def _millilitres(axis: Axes, which: str) -> None:
    """Linear below 1 ml, logarithmic above: bleeds are from under 1 to over 60 ml."""
    for name in which:
        getattr(axis, f"set_{name}scale")("symlog", linthresh=1)
        getattr(axis, f"{name}axis").set_major_formatter("{x:.0f}")
