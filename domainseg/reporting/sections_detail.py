"""The report's sections on the main target in depth: operating points, usefulness, prior, readers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import numpy as np

from domainseg.reporting.content import Content
from domainseg.reporting.figures import INK, MUTED, NEGATIVE, POSITIVE, as_svg, drawing
from domainseg.reporting.page import Figure, Section, Table
from domainseg.reporting.words import COLUMNS, METRICS, interval, number, title

_POINT = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "lr_positive", "lr_negative")


def details(content: Content) -> list[Section]:
    """A section for each part of the main target's detail that its metrics hold."""
    metrics = content.results.get(content.main or "", {})
    parts = (_operating, _benefit, _prior, _readers)
    return [section for part in parts for section in [part(metrics)] if section is not None]


def worst_rows(content: Content) -> list[dict[str, Any]]:
    """Rows of column, worst group, its AUC and n, the groups' mean, how many they are, those too small to compare."""
    found = content.results.get(content.main or "", {}).get("worst", {})
    return [
        {
            "column": COLUMNS.get(column, title(column, {})),
            "group": row["group"].replace("_", " ") if row["group"] else "too few groups to compare",
            "auc": interval(row["auc"]),
            "n": row["auc"]["n"] if row["auc"] else "–",
            "mean": number(row["mean"]),
            "groups": row["groups"],
            "few": ", ".join(name.replace("_", " ") for name in row["too_few"]) or "none",
        }
        for column, row in found.items()
    ]


def ratio(metric: Mapping[str, Any]) -> str:
    """A likelihood ratio with its interval, which may have no end."""
    low, high = (number(metric[side], 2) for side in ("low", "high"))
    if metric["low"] is None or number(metric["low"]) == "–":
        return "–"
    value = number(metric["value"], 2)
    return f"{'∞' if value == '–' else value} ({low} to {'∞' if high == '–' else high})"


def _operating(metrics: Mapping[str, Any]) -> Section | None:
    if not metrics.get("operating"):
        return None
    rows = []
    for name, point in metrics["operating"].items():
        threshold = point["threshold"]
        cells = [ratio(point[key]) if key.startswith("lr") else interval(point[key]) for key in _POINT]
        told = threshold if isinstance(threshold, str) else number(threshold, 4)
        rows.append([name, told, point["chosen_on"], *cells])
    heads = ["Threshold", "Value", "Chosen on", *(METRICS.get(key, key) for key in _POINT[:5]), "LR +", "LR −"]
    note = (
        "Intervals take the threshold as given. The one chosen on the test set itself is there to be compared with "
        "Zech et al. 2018 and must not be used: nobody has the labels of the cases to come. LR: likelihood ratio."
    )
    used = "; the first line is the operating point used below" if "post_test" in metrics else ""
    first = Table(heads, rows, f"Scored cases{used}.", note, (1,))
    shift = metrics.get("shift")
    return Section("Operating points", tables=[first, *([_shift(shift)] if shift else [])])


def _shift(shift: Mapping[str, Any]) -> Table:
    heads = ["", "Sensitivity", "against the reference", "n", "Specificity", "against the reference", "n"]
    rows = []
    for name, here in shift["by"].items():
        row = [f"{name} (reference)" if name == shift["reference"] else name]
        for key in ("sensitivity", "specificity"):
            row += [interval(here[key]), interval(here.get(f"{key}_difference")), str(here[key]["n"])]
        rows.append(row)
    note = "Where the threshold was chosen on tune, what it keeps there flatters." if "tune" in shift["by"] else ""
    return Table(heads, rows, "How the operating point moves between sites, scored cases.", note, (3, 6))


def _benefit(metrics: Mapping[str, Any]) -> Section | None:
    curve, figures, text = metrics.get("decision_curve"), [], []
    if "post_test" not in metrics and not curve:
        return None
    rows = [
        [f"{100 * float(prevalence):g} %", interval(values["ppv"]), interval(values["npv"])]
        for prevalence, values in metrics.get("post_test", {}).items()
    ]
    table = Table(
        ["Prevalence", "PPV", "NPV"],
        rows,
        "Probability after a call, by how common the finding is where the model is used.",
        "From the likelihood ratios of the first operating point: they must hold there too.",
    )
    if curve:
        caption = (
            "Net benefit (Vickers and Elkin 2006) of acting on the score at a threshold probability, with intervals; "
            "of acting on all cases; on none it is zero. What matters is where a curve is the highest, not how high."
        )
        figures.append(Figure(decision_figure(curve), caption))
        beats = {cut: here["gain"]["low"] is not None and here["gain"]["low"] > 0 for cut, here in curve.items()}
        runs = [list(run) for better, run in groupby(curve, beats.__getitem__) if better]
        told = " and ".join(f"from {run[0]} to {run[-1]}" if len(run) > 1 else f"of {run[0]}" for run in runs)
        text.append(
            f"Acting on the score beats acting on all or none, with its interval, at threshold probabilities {told}."
            if runs
            else "At no threshold probability does acting on the score beat acting on all or none with its interval."
        )
    return Section("Use", text=text, tables=[table] if rows else [], figures=figures)


def decision_figure(curve: Mapping[str, Any]) -> str:
    """Net benefit of the score with its interval, of treating all, of treating none."""
    cuts = np.array([float(cut) for cut in curve])

    def line(name: str, side: str = "value") -> Any:
        values = [here[name][side] for here in curve.values()]
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    with drawing(1, height=3.0, width=5.2) as (figure, (axis,)):
        low, value, high = (line("net_benefit", side) for side in ("low", "value", "high"))
        axis.fill_between(cuts, low, high, color=POSITIVE, alpha=0.18, linewidth=0)
        axis.plot(cuts, value, color=POSITIVE, linewidth=1.6, label="score")
        axis.plot(cuts, line("treat_all"), "--", color=NEGATIVE, linewidth=1.3, label="all")
        axis.axhline(0, color=MUTED, linewidth=1, label="none")
        top = float(np.nanmax(np.r_[high, value, 0.01]))
        axis.set(xlabel="threshold probability", ylabel="net benefit", xlim=(0, 1), ylim=(-0.25 * top, 1.08 * top))
        axis.legend(loc="upper right", labelcolor=INK)
        return as_svg(figure)


def _prior(metrics: Mapping[str, Any]) -> Section | None:
    prior = metrics.get("prior")
    if not prior:
        return None
    text = [f"A logistic regression on {', '.join(prior['columns'])}, fitted on {prior['fitted_on']}."]
    if "image" not in prior:
        return Section("What was known before the image", text=text)
    names = {"image": "Image alone", "prior": "Known before alone", "combined": "Both combined"}
    rows = [[names[key], interval(prior[key]["auc"]), "", "", str(prior[key]["auc"]["n"])] for key in names]
    for key in ("image", "prior"):
        found = prior[f"combined_against_{key}"]
        p = "< 0.001" if found["p"] is not None and found["p"] < 0.001 else number(found["p"])
        rows.append(
            [f"Combined − {names[key].lower()}", "", interval(found["difference"]), p, str(found["difference"]["n"])]
        )
    note = "Differences by the paired DeLong test. Where the prior alone ranks well, part of a score may be the prior."
    table = Table(["", "AUC", "Difference", "p", "n"], rows, note=note, numeric=(3, 4))
    return Section("What was known before the image", text=text, tables=[table])


def _readers(metrics: Mapping[str, Any]) -> Section | None:
    readers = metrics.get("readers")
    if not readers:
        return None
    f1, points = readers["f1"], readers.get("points")
    rows = [[name, interval(metric), str(metric["n"])] for name, metric in f1["by"].items()]
    for key, name in (("mean", "Mean of readers"), ("model", "Model"), ("difference", "Model − mean of readers")):
        rows.append([name, interval(f1[key]), str(f1[key]["n"])])
    at = readers["model_called_at"]
    said = (
        "The model has no F1: the table has no threshold_<target>, and no tune cases on which one could be chosen."
        if at is None
        else f"The model's calls are those at the operating point “{at}”."
    )
    tables = [
        Table(
            ["", "F1", "n"],
            rows,
            "F1 of each against each other reader, averaged, as in CheXNet; no truth is needed.",
            f"Patient bootstrap over cases. {said}",
            (2,),
        )
    ]
    if points:
        mean = points["mean"]
        own = [(name, here["sensitivity"], here["specificity"]) for name, here in points["by"].items()]
        own.append(("Mean of readers", mean["sensitivity"], mean["specificity"]))
        own.append(("Model at the readers' mean specificity", points["model"], None))
        own.append(("Model − mean of readers", points["difference"], None))
        tables.append(
            Table(
                ["", "Sensitivity", "n", "Specificity", "n"],
                [[name, *(cell for metric in both for cell in _with_n(metric))] for name, *both in own],
                "Against the reference truth, on cases that were read and scored.",
                "n of a reader: positives and negatives called; of means and the model: all cases, of both labels. "
                f"Standard deviation among readers: sensitivity {number(mean['sensitivity_sd'])}, specificity "
                f"{number(mean['specificity_sd'])}; the error bars of the ROC figure.",
                (2, 4),
            )
        )
    return Section("Readers", tables=tables)


def _with_n(metric: Mapping[str, Any] | None) -> tuple[str, str]:
    return ("", "") if metric is None else (interval(metric), str(metric["n"]))
