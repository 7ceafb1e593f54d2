"""report.html of the label command: figures, words and warnings; no text of any report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from domainseg.labeling import measuring
from domainseg.labeling.division import Division
from domainseg.labeling.learning import Learned
from domainseg.labeling.words import FEWEST, Shown, telling
from domainseg.reporting.figures import INK, MUTED, NEGATIVE, POSITIVE, as_svg, drawing
from domainseg.reporting.page import Figure, Page, Section, Table, write_page
from domainseg.reporting.words import interval, number

_FIGURES = ("auc", "sensitivity", "specificity", "ppv", "npv")
_HOW = (
    "Nothing was chosen on these reports: features, penalty, threshold and band come from the training part, by "
    "cross-validation within it. 95 % intervals. The plain reference is an L1 logistic regression on the presence of "
    "1-3-grams with the same grid, folds and reports; the difference of the AUCs is tested by DeLong's paired test."
)
_SIGNS = (
    "n-grams and findings with the largest weights. + asserted, - denied, ? in doubt, without a sign: anywhere in the "
    f"report. Only words in the reports of {FEWEST} patients or more outside the hold-out part are shown, none with a "
    "number and none that is spelt like a name."
)
_RULES = (
    "Sections, negation and doubt after NegEx, NegBio and CheXpert. A finding counts where findings or impression "
    "mention it: asserted before in doubt before denied."
)
_HEADS = ("AUC", "Sensitivity", "Specificity", "PPV", "NPV")


def write_models(
    path: Path,
    cfg: Mapping[str, Any],
    results: Mapping[str, Any],
    learned: Mapping[str, Learned],
    skipped: Mapping[str, str],
    shown: Shown,
    notes: Sequence[str],
    division: Division,
    given: pd.DataFrame,
) -> None:
    """Write the page of learned labels."""
    metrics = results["test"]
    own = {name: metrics[name] for name in learned}
    overall = results.get("test_mean_over_labels")
    warnings = [*notes, *measuring.warnings_of(metrics, {name: model.decision for name, model in learned.items()})]
    forest = [Figure(_forest(own), "AUC on held-out reports: ours and the plain reference, 95 % intervals.")]
    sections = [
        Section(
            "Figures on held-out reports",
            text=[f"Held out: {division.how}.", _HOW],
            tables=[_compared(own), _figures("Calls at the threshold", own)],
            figures=forest if own else [],
        ),
        Section("Labels that are given", text=[_band(cfg)], tables=[_given(own, learned, given)]),
    ]
    rules = {name: values["rule"] for name, values in metrics.items() if "rule" in values}
    if rules:
        text = "Called is what the rule finds positive. Its AUC is over positive, uncertain, unmentioned, negative."
        sections.append(Section("The rules, on the same reports", text=[text], tables=[_figures("Rules", rules)]))
    sections.append(Section("Telling words", text=[_SIGNS], tables=[_words(learned, shown)]))
    if skipped:
        table = Table(["Label", f"Fewer than {cfg['min_cases']} of either"], list(skipped.items()))
        sections.append(Section("Labels that were not learned", tables=[table]))
    brief = [f"{len(given):,} reports, {len(learned)} labels learned, {len(skipped)} not learned for want of cases."]
    if overall:
        brief.append(
            f"Mean AUC over labels {interval(overall['auc'])}, plain reference {interval(overall['reference'])}, "
            f"difference {interval(overall['difference'])}; {overall['auc']['n']} held-out reports."
        )
    write_page(Page("Labels from reports", _subtitle(cfg), brief, warnings, sections), path)


def write_rules(
    path: Path,
    cfg: Mapping[str, Any],
    results: Mapping[str, Any],
    given: pd.DataFrame,
    names: Sequence[str],
    notes: Sequence[str],
) -> None:
    """Write the page of labels by rules."""
    counts = {name: given[f"status_{name}"].value_counts() for name in names}
    states = ("positive", "uncertain", "negative", "unmentioned")
    rows = [[name, *(str(int(counts[name].get(state, 0))) for state in states)] for name in names]
    text = [
        _RULES,
        f"In the labels, uncertain is {cfg['uncertain']} and unmentioned is {cfg['unmentioned']}.",
    ]
    heads = ["Finding", *(state.capitalize() for state in states)]
    sections = [Section("What the reports say", text, [Table(heads, rows, numeric=range(1, 5))])]
    if results.get("test"):
        text = ["All labelled reports: the rules learn from none. Called is what the rule finds positive."]
        sections.insert(0, Section("Against the hand labels", text, [_figures("Rules", results["test"])]))
    brief = [f"{len(given):,} reports, {len(names)} findings, by rules alone."]
    write_page(Page("Labels from reports", _subtitle(cfg), brief, notes, sections), path)


def _subtitle(cfg: Mapping[str, Any]) -> str:
    return f"{Path(cfg['reports']).name}, seed {cfg['seed']}."


def _compared(own: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        [
            name, str(m["sensitivity"]["n"]), str(m["auc"]["n"]), interval(m["auc"]), interval(m["reference"]["auc"]),
            interval(m["difference"]), _p(m["difference"]["p"]),
        ]
        for name, m in own.items()
    ]  # fmt: skip
    heads = ["Label", "Positive", "Held out", "AUC", "Plain reference", "Difference", "p"]
    return Table(heads, rows, "Area under the ROC curve", numeric=range(1, 7))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else number(value)


def _figures(caption: str, own: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [[name, str(m["auc"]["n"]), *(interval(m[figure]) for figure in _FIGURES)] for name, m in own.items()]
    return Table(["Label", "Reports", *_HEADS], rows, caption, numeric=range(1, 7))


def _band(cfg: Mapping[str, Any]) -> str:
    certainty = float(cfg["certainty"])
    if not certainty:
        return "A label is 1 where the probability reaches the threshold, else 0. Hand labels win."
    return (
        f"labels.csv gives a 1 where in training at least {certainty:.0%} of the reports that score as high were "
        f"positive, and a 0 below what {certainty:.0%} of the positive ones reach; between them the label is unknown. "
        "Hand labels win. Not mentioned: would get a 0 from the words, but says nothing of it, and hand labels have "
        "shown too few such reports; unknown. How many of the given are right is measured on the held-out reports."
    )


def _given(own: Mapping[str, Mapping[str, Any]], learned: Mapping[str, Learned], given: pd.DataFrame) -> Table:
    rows = []
    for name, model in learned.items():
        by_model = given[f"source_{name}"] == "model"
        values = given[f"label_{name}"][by_model]
        decision, held = model.decision, own[name]["given"]
        rows.append(
            [
                name, f"{decision.rule}, {number(decision.threshold)}",
                f"{number(decision.low)} to {number(decision.high)}",
                interval(held["coverage"]), interval(held["ppv"]), interval(held["npv"]),
                str(int((values == 1).sum())), str(int((values == 0).sum())),
                str(int((given[f"source_{name}"] == "not mentioned").sum())),
                str(int(given[f"label_{name}"].isna().sum())),
            ]
        )  # fmt: skip
    heads = [
        "Label", "Threshold", "Unknown between", "Given a label", "Right among the 1s", "Right among the 0s",
        "1 by model", "0 by model", "Not mentioned", "Unknown in all",
    ]  # fmt: skip
    return Table(heads, rows, numeric=range(3, 10))


def _words(learned: Mapping[str, Learned], shown: Shown) -> Table:
    rows = []
    for name, model in learned.items():
        sides = [", ".join(f"{word} ({number(w, 1)})" for word, w in side) for side in telling(model, shown)]
        rows.append([name, " + ".join(model.views), f"{model.c:g}", *sides])
    return Table(["Label", "Features", "C", "For", "Against"], rows)


def _forest(own: Mapping[str, Mapping[str, Any]]) -> str:
    with drawing(1, 0.9 + 0.34 * len(own), 7.0) as (figure, (axis,)):
        for place, metrics in enumerate(own.values()):
            for shift, metric, colour, mark in (
                (-0.12, metrics["auc"], POSITIVE, "o"), (0.12, metrics["reference"]["auc"], NEGATIVE, "s"),
            ):  # fmt: skip
                axis.plot([metric["low"], metric["high"]], [place + shift] * 2, color=colour, linewidth=1.2)
                axis.plot(metric["value"], place + shift, mark, color=colour, markersize=4)
        axis.plot([], [], "o", color=POSITIVE, label="ours")
        axis.plot([], [], "s", color=NEGATIVE, label="plain 1-3-grams")
        axis.set_yticks(np.arange(len(own)), list(own), color=INK)
        axis.set_ylim(len(own) - 0.5, -0.5)
        axis.set_xlabel("AUC")
        axis.grid(axis="x", color=MUTED, alpha=0.3)
        axis.legend(frameon=False, loc="best")
        return as_svg(figure)
