"""The audit's figures, drawn from what is in audit.json: AUCs by group, scores by group and label, risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domainseg.reporting.figures import INK, MUTED, NEGATIVE, POSITIVE, as_svg, drawing, forest
from domainseg.reporting.words import known

Record = dict[str, Any]
_TICKS = (1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)  # probabilities shown on the axis of log-odds
_TICK_NAMES = ("0.0001", "0.001", "0.01", "0.1", "0.5", "0.9", "0.99", "0.999", "0.9999")


def within_groups(whole: Record) -> str | None:
    """Forest of the AUC within each group, below the pooled one; None when no group has one."""
    entries = [("all cases, pooled", "all cases, pooled", whole["auc"])]
    for record in whole["attributes"]:
        entries += [
            (record["attribute"], f"{group['name']} ({group['positives']} of {group['n']})", group["auc"])
            for group in record["groups"]
            if known(group.get("auc"))
        ]
    return forest(entries, "AUC within the group, 95 % interval") if len(entries) > 1 else None


def score_bars(whole: Record) -> str | None:
    """Scores by group and label, one panel an attribute: middle half thick, middle 90 % thin, the median a dot."""
    records = [record for record in whole["attributes"] if record["groups"] and "used" in record]
    if not records:
        return None
    most = max(len(record["groups"]) for record in records)
    ends = [
        value
        for record in records
        for group in record["groups"]
        for quantiles in group["score_quantiles"].values()
        for value in quantiles
    ]
    odds = min(ends) > 0 and max(ends) < 1
    with drawing(len(records), height=0.9 + 0.36 * most, width=3.6) as (figure, axes):
        for axis, record in zip(axes, records, strict=True):
            for place, group in enumerate(record["groups"]):
                for word, shift, color in (("negative", 0.16, NEGATIVE), ("positive", -0.16, POSITIVE)):
                    quantiles = np.array(group["score_quantiles"][word])
                    if not len(quantiles):
                        continue
                    x = np.log(quantiles / (1 - quantiles)) if odds else quantiles
                    y = -place + shift
                    axis.plot(x[[0, 4]], [y, y], color=color, linewidth=1, solid_capstyle="butt")
                    axis.plot(x[[1, 3]], [y, y], color=color, linewidth=4, alpha=0.55, solid_capstyle="butt")
                    axis.plot(x[2], y, "o" if word == "positive" else "s", color=color, markersize=4)
            axis.set_yticks([-place for place in range(len(record["groups"]))], [g["name"] for g in record["groups"]])
            axis.set_ylim(-most + 0.5, 0.5)
            if odds:
                low, high = (np.log(value / (1 - value)) for value in (min(ends), max(ends)))
                shown = [(np.log(p / (1 - p)), name) for p, name in zip(_TICKS, _TICK_NAMES, strict=True)]
                shown = [(x, name) for x, name in shown if low - 0.5 <= x <= high + 0.5]
                axis.set_xticks([x for x, _ in shown], [name for _, name in shown])
            axis.set(title=record["attribute"], xlabel="score" + (", on the scale of log-odds" if odds else ""))
            axis.tick_params(axis="y", length=0)
        axes[0].plot([], [], "-o", color=POSITIVE, label="label 1")
        axes[0].plot([], [], "-s", color=NEGATIVE, label="label 0")
        figure.legend(loc="outside lower left", ncols=2)
        return as_svg(figure)


def risk_map(records: Sequence[Record], size: Mapping[str, float]) -> str | None:
    """Each attribute of a manifest by how well it is read from the films and how much it tells of the label."""
    shown = [
        record for record in records if "image" in record["detectable"] and known(record["detectable"]["image"]["auc"])
    ]
    if not shown:
        return None
    with drawing(1, height=3.4, width=5.6) as (figure, (axis,)):
        axis.fill_between([size["detectable"], 1.02], size["associated"], 1.02, color=MUTED, alpha=0.1, linewidth=0)
        axis.axhline(size["associated"], color=MUTED, linewidth=0.8, linestyle=":")
        axis.axvline(size["detectable"], color=MUTED, linewidth=0.8, linestyle=":")
        taken: list[tuple[float, float]] = []
        for record in sorted(shown, key=lambda record: -record["associated"]["auc"]["value"]):
            x, y = record["detectable"]["image"]["auc"]["value"], record["associated"]["auc"]["value"]
            color = POSITIVE if record["verdict"] == "at hand" else NEGATIVE
            axis.plot(x, y, "o" if record["verdict"] == "at hand" else "s", color=color, markersize=6)
            near = sum(abs(x - a) < 0.12 and abs(y - b) < 0.03 for a, b in taken)
            left = x > 0.85
            axis.annotate(
                record["attribute"],
                (x, y),
                (-7 if left else 7, -9 * near),
                textcoords="offset points",
                va="center",
                ha="right" if left else "left",
                color=INK,
                fontsize=8,
            )
            taken.append((x, y))
        axis.set(
            xlabel="read from the films by a linear probe, AUC (detectable)",
            ylabel="AUC of the attribute alone\nfor the label (associated)",
            xlim=(0.38, 1.02),
            ylim=(0.4, 1.02),
        )
        return as_svg(figure)
