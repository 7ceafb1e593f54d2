"""The page of a retest: the same models on an old and a new test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from domainseg.reporting.figures import INK, MUTED, NEGATIVE, POSITIVE, as_svg, drawing
from domainseg.reporting.page import Figure, Page, Section, Table
from domainseg.reporting.words import interval, known, number, several

_HEADS = ("Model", "Old", "New", "Old − new", "Rank, old", "Rank, new", "Ranks gained")


def retest_page(name: str, found: Mapping[str, Any]) -> Page:
    """The table of Recht et al. 2018 with what it says in words; ``found`` as ``evaluation.retest`` gives it."""
    models, fit = found["models"], found["fit"]
    rows = [
        [
            row["model"],
            *(interval(row[key]) for key in ("old", "new", "gap")),
            str(row["rank_old"]),
            str(row["rank_new"]),
            f"{row['rank_change']:+d}" if row["rank_change"] else "0",
        ]
        for row in models
    ]
    fallen = sum(row["gap"]["value"] > 0 for row in models)
    moved = sum(row["rank_change"] != 0 for row in models)
    told = f"{fallen} of {several(len(models), 'model', 'models')} score lower on the new set"
    brief = [f"{told}; the mean drop is {number(found['mean_gap'])}; {moved} change their rank."]
    if known(fit["slope"]):
        brief.append(f"New = {number(fit['intercept']['value'])} + {interval(fit['slope'], 2)} × old (least squares).")
        if fit["slope"]["low"] > 1:
            brief.append("A slope above 1: the better a model was on the old set, the less it loses.")
    table = Table(
        heads=_HEADS,
        rows=rows,
        note="95 % intervals: Clopper-Pearson for fractions, DeLong or Obuchowski on the logit scale for AUCs; of "
        "differences Newcombe's, for AUCs the unpaired DeLong test's. Rank 1 is best.",
        numeric=(4, 5, 6),
    )
    figures = [Figure(_scatter(models, fit), "Each model: new against old figure, with intervals. Grey: no drop.")]
    section = Section("Old and new test set", tables=[table], figures=figures)
    return Page(f"Retest: {name}", "The same models on an old and a new test set.", brief=brief, sections=[section])


def _scatter(models: Any, fit: Mapping[str, Any]) -> str:
    with drawing(1, height=4.0, width=4.4) as (figure, (axis,)):
        values = np.array([[row["old"]["value"], row["new"]["value"]] for row in models])
        ends = np.array([values.min(), values.max()]) + np.array([-0.02, 0.02])
        axis.plot(ends, ends, color=MUTED, linewidth=0.8)
        for row in models:
            x, y = row["old"], row["new"]
            for low, high, along in ((x["low"], x["high"], "x"), (y["low"], y["high"], "y")):
                if np.isfinite([low, high]).all():
                    line = ([low, high], [y["value"]] * 2) if along == "x" else ([x["value"]] * 2, [low, high])
                    axis.plot(*line, color=NEGATIVE, linewidth=0.8)
            axis.plot(x["value"], y["value"], "o", color=NEGATIVE, markersize=4)
            if len(models) <= 20:
                axis.annotate(row["model"], (x["value"], y["value"]), (5, -8), textcoords="offset points", fontsize=7)
        if known(fit["slope"]):
            at = np.array([values[:, 0].min(), values[:, 0].max()])
            axis.plot(
                at,
                fit["intercept"]["value"] + fit["slope"]["value"] * at,
                color=POSITIVE,
                linewidth=1.4,
                label="least squares",
            )
            axis.legend(loc="upper left", labelcolor=INK)
        axis.set(xlabel="old test set", ylabel="new test set")
        return as_svg(figure)
