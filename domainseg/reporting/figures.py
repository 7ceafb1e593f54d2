"""The report's figures, each drawn from numbers that are in the prediction table or in metrics.json.

Figures are SVG text without dates or random names, so that the same run gives the same report. Colours are told apart
by people who see red and green alike; what a colour says is also said by a line style or a word.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from domainseg.evaluation import roc
from domainseg.evaluation.calibration import bins
from domainseg.evaluation.intervals import proportion
from domainseg.evaluation.tables import Rows, numbers, probable
from domainseg.imaging.hemorrhage import TYPES
from domainseg.reporting.words import CLASSES, TITLES, number

POSITIVE, NEGATIVE, MUTED, INK = "#b5482a", "#2f6690", "#8a8f98", "#1f2933"
_PANEL = 3.1  # inches
_ACROSS = 4  # panels in a row

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "path",
    "svg.hashsalt": "domainseg",
}


@contextmanager
def drawing(panels: int, height: float = _PANEL, width: float = _PANEL) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure in our style with so many panels side by side, at most four in a row, each height x width inches."""
    with matplotlib.rc_context(_STYLE):
        across, down = min(panels, _ACROSS), -(-panels // _ACROSS)
        figure = Figure(figsize=(width * across, height * down), layout="constrained")
        yield figure, [figure.add_subplot(down, across, k + 1) for k in range(panels)]


def _label_rows(axes: Sequence[Axes], text: str) -> None:
    """The label of the vertical axis, at the first panel of each row."""
    for axis in axes[::_ACROSS]:
        axis.set_ylabel(text)


def as_svg(figure: Figure) -> str:
    """The figure as SVG text."""
    with matplotlib.rc_context(_STYLE):
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        return stream.getvalue()


def two_classes(rows: Rows) -> bool:
    """Whether both classes were scored, without which there is no curve to draw."""
    return len(np.unique(rows.take(rows.scored).label)) == 2


def roc_curves(rows: Mapping[str, Rows], readers: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """ROC curves, one panel a target: on intention (full line), conditional (dashed), the frozen operating point.

    readers: target -> readers' points and their mean, with its standard deviations as error bars.
    """
    with drawing(len(rows)) as (figure, axes):
        for axis, (target, all_rows) in zip(axes, rows.items(), strict=True):
            scored, judged = all_rows.take(all_rows.scored), all_rows.judged()
            axis.plot([0, 1], [0, 1], color="#d5d8dc", linewidth=0.8)
            for part, style, name in ((judged, "-", "on intention"), (scored, "--", "scored only")):
                if len(np.unique(part.label)) == 2:
                    false, true = roc.curve(part.label, part.score)
                    value = roc.auc(part.label, part.score, part.clusters, _folds(part))["value"]
                    color = POSITIVE if style == "-" else MUTED
                    axis.plot(false, true, style, color=color, linewidth=1.6, label=f"{name}, AUC {number(value)}")
            point = _operating_point(judged)
            if point is not None:
                axis.plot(*point, "o", color=INK, markersize=5, label="frozen threshold")
            if readers and target in readers:
                _readers(axis, readers[target])
            axis.set(title=TITLES.get(target, target), xlabel="1 − specificity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            axis.set_aspect("equal")
            axis.legend(loc="lower right", handlelength=1.6)
        _label_rows(axes, "sensitivity")
        return as_svg(figure)


def _readers(axis: Axes, found: Mapping[str, Any]) -> None:
    """Each reader as a point, and the mean of all with one standard deviation to either side (Esteva et al. 2017)."""
    for k, one in enumerate(found["by"].values()):
        at = 1 - one["specificity"]["value"], one["sensitivity"]["value"]
        axis.plot(*at, "x", color=NEGATIVE, markersize=5, label=None if k else "readers")
    mean = found["mean"]
    sd = [mean[f"{side}_sd"] or 0 for side in ("specificity", "sensitivity")]
    axis.errorbar(
        1 - mean["specificity"]["value"],
        mean["sensitivity"]["value"],
        xerr=np.nan_to_num(sd[0]),
        yerr=np.nan_to_num(sd[1]),
        fmt="D",
        color=NEGATIVE,
        markersize=5,
        linewidth=1,
        label="mean of readers ± SD",
    )


def _folds(rows: Rows) -> Any:
    return rows.fold if len(np.unique(rows.fold)) > 1 else None


def _operating_point(rows: Rows) -> tuple[float, float] | None:
    finite = np.isfinite(rows.score)
    if not finite.any() or np.isnan(rows.threshold[finite]).any():
        return None
    called = np.where(finite, rows.score >= rows.threshold, rows.score > 0)
    if not ((rows.label == 1).any() and (rows.label == 0).any()):
        return None
    return float(called[rows.label == 0].mean()), float(called[rows.label == 1].mean())


def score_histograms(rows: Mapping[str, Rows]) -> str:
    """Calibrated scores of both classes, one panel a target, with the frozen threshold."""
    with drawing(len(rows), height=2.5) as (figure, axes):
        for axis, (target, all_rows) in zip(axes, rows.items(), strict=True):
            scored = all_rows.take(all_rows.scored)
            ends = (0.0, 1.0) if probable(scored.score) else (float(scored.score.min()), float(scored.score.max()))
            edges = np.linspace(*ends, 26).tolist()
            names = CLASSES.get(target, ("negative", "positive"))
            for side, color in ((0, NEGATIVE), (1, POSITIVE)):
                values = scored.score[scored.label == side]
                axis.hist(
                    values,
                    edges,
                    histtype="step" if side else "stepfilled",
                    color=color,
                    alpha=1 if side else 0.45,
                    linewidth=1.6,
                    label=f"{names[side]} ({len(values)})",
                )
            for k, threshold in enumerate(np.unique(scored.threshold[~np.isnan(scored.threshold)])):
                axis.axvline(threshold, color=INK, linewidth=1, linestyle=":", label=None if k else "threshold")
            axis.set_yscale("symlog", linthresh=10)
            axis.yaxis.set_major_formatter("{x:.0f}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            calibrated = target not in TYPES and probable(scored.score)
            axis.set(title=TITLES.get(target, target), xlabel="calibrated score" if calibrated else "score")
            axis.set_xlim(ends[0] - 0.01 * (ends[1] - ends[0]), ends[1] + 0.01 * (ends[1] - ends[0]))
            axis.legend(loc="upper center", handlelength=1.2, frameon=True, edgecolor="none", framealpha=0.9)
            axis.set_ylim(0, axis.get_ylim()[1] * 3)
        _label_rows(axes, "cases")
        return as_svg(figure)


def calibration_curves(rows: Mapping[str, Rows]) -> str:
    """Observed fraction against mean score in ten bins of equal count, with intervals of patients."""
    with drawing(len(rows)) as (figure, axes):
        for axis, (target, all_rows) in zip(axes, rows.items(), strict=True):
            scored = all_rows.take(all_rows.scored)
            axis.plot([0, 1], [0, 1], color="#d5d8dc", linewidth=0.8)
            member = bins(scored.score)
            for b in np.unique(member):
                label = scored.label[member == b]
                found = proportion(label == 1, scored.clusters[member == b])
                x = scored.score[member == b].mean()
                axis.plot([x, x], [found["low"], found["high"]], color=NEGATIVE, linewidth=1)
                axis.plot(x, label.mean(), "o", color=NEGATIVE, markersize=4)
            axis.set(title=TITLES.get(target, target), xlabel="mean score", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            axis.set_aspect("equal")
        _label_rows(axes, "observed fraction")
        return as_svg(figure)


def forest(entries: Sequence[tuple[str, str, Mapping[str, Any]]], metric: str) -> str:
    """Group metrics with intervals: entries are (column heading, group, metric record); the first is the whole."""
    with drawing(1, height=0.9 + 0.24 * (len(entries) + len({heading for heading, _, _ in entries})), width=8.2) as (
        figure,
        (axis,),
    ):
        y, ticks, names, last = 0.0, [], [], None
        for heading, name, record in entries:
            if heading != last and last is not None:
                y -= 0.7
            last, color = heading, INK if heading == entries[0][0] else NEGATIVE
            if record["value"] is not None and np.isfinite(record["value"]):
                if record["low"] is not None and np.isfinite(record["low"]):
                    axis.plot([record["low"], record["high"]], [y, y], color=color, linewidth=1.4)
                axis.plot(record["value"], y, "s", color=color, markersize=4.5)
            ticks.append(y)
            names.append(name if heading == name else f"{heading}: {name}")
            y -= 1
        whole = entries[0][2]["value"]
        if whole is not None and np.isfinite(whole):
            axis.axvline(whole, color=MUTED, linewidth=0.8, linestyle=":")
        axis.set_yticks(ticks, names)
        axis.set_ylim(y + 0.3, 0.7)
        lows = [r["low"] for _, _, r in entries if r["low"] is not None and np.isfinite(r["low"])]
        axis.set_xlim(max(0.0, min([0.5, *lows]) - 0.02), 1.01)
        axis.set_xlabel(metric)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        return as_svg(figure)


def flow(steps: Sequence[Mapping[str, Any]], classes: tuple[str, str]) -> str:
    """Cases left after each stage (full) and taken by it (pale; hatched: wrongly), one panel a class."""
    with drawing(2, height=0.75 + 0.3 * len(steps), width=4.4) as (figure, axes):
        for axis, side, name, color in zip(
            axes, ("positive", "negative"), (classes[1], classes[0]), (POSITIVE, NEGATIVE), strict=True
        ):
            for k, step in enumerate(steps):
                left, taken, wrong = (step[kind][side] for kind in ("left", "taken", "wrong"))
                taken = 0 if k == 0 else taken
                axis.barh(-k, left, color=color, height=0.62)
                axis.barh(-k, taken, left=left, color=color, alpha=0.25, height=0.62)
                if k and wrong:
                    axis.barh(-k, wrong, left=left, facecolor="none", edgecolor=INK, hatch="/////", height=0.62, lw=0.6)
                said = f"{left}" + (f"   −{taken}" if taken else "") + (f", {wrong} wrongly" if k and wrong else "")
                axis.annotate(said, (left + taken, -k), (4, 0), textcoords="offset points", va="center", fontsize=8)
            axis.set_title(name.capitalize())
            axis.set_yticks([-k for k in range(len(steps))], [str(step["name"]) for step in steps])
            axis.set_xlim(0, 1.35 * max(1, steps[0]["left"][side]))
            axis.set_xticks([])
            axis.spines[["bottom", "left"]].set_visible(False)
            axis.tick_params(axis="y", length=0)
        axes[1].set_yticks([])
        return as_svg(figure)


def head_errors(rows: Rows) -> str:
    """Distance between found and true femoral heads: cumulative, in mm where known, in % of the film's width."""
    columns = [("head_error_mm", "mm", 5.0), ("head_error_pct", "% of the film's width", 6.0)]
    known = [(c, unit, t, e[~np.isnan(e)]) for c, unit, t in columns for e in [numbers(rows.table, c)]]
    known = [entry for entry in known if len(entry[3])]
    with drawing(max(1, len(known)), height=2.4) as (figure, axes):
        for axis, (_, unit, tolerance, error) in zip(axes, known, strict=True):
            values = np.sort(error)
            axis.step(values, np.arange(1, len(values) + 1) / len(values), color=NEGATIVE, linewidth=1.6, where="post")
            axis.axvline(tolerance, color=INK, linewidth=1, linestyle=":")
            axis.annotate(f"tolerance {tolerance:g}", (tolerance, 0.05), (3, 0), textcoords="offset points", fontsize=8)
            right = max(1.4 * tolerance, float(np.quantile(values, 0.98)))
            axis.set(xlabel=f"error in {unit}", xlim=(0, right), ylim=(0, 1.02))
        axes[0].set_ylabel("heads found within")
        return as_svg(figure)


def training_curves(curves: pd.DataFrame, title: str) -> str:
    """Curves of one stage: losses on the left, other quantities on the right, against the step."""
    step = "step" if "step" in curves else curves.columns[0]
    names = [
        str(name) for name in curves if name not in (step, "epoch") and pd.api.types.is_numeric_dtype(curves[name])
    ]
    names = [name for name in names if curves[name].notna().any()]
    parts = [[n for n in names if "loss" in n], [n for n in names if "loss" not in n]]
    parts = [part for part in parts if part] or [[]]
    with drawing(len(parts), height=2.3) as (figure, axes):
        palette = [NEGATIVE, POSITIVE, "#5b8c5a", "#7d5ba6", MUTED, "#c29b2c"]
        for axis, part in zip(axes, parts, strict=True):
            for k, name in enumerate(part[:6]):
                shown = curves[[step, name]].dropna()
                marker = "." if len(shown) < 30 else None
                axis.plot(shown[step], shown[name], color=palette[k], linewidth=1.3, label=name, marker=marker)
            axis.set_xlabel(str(step))
            if part:
                axis.legend(loc="best", handlelength=1.2)
        axes[0].set_title(title)
        return as_svg(figure)
