"""The report's table of findings on chest films, beside the figures that others printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from domainseg.evaluation.published import CHEST_AUC, CHEST_BASE_RATES, CHEST_COLUMNS
from domainseg.imaging.chest import FINDINGS
from domainseg.reporting.content import Content, record
from domainseg.reporting.words import METRICS, TITLES, interval, number, several, stage_title, title

HEADS = (
    "Finding", "Films with it", "of", "AUC", "Sensitivity", "Specificity", *CHEST_COLUMNS, "Base rate", "that of NIH",
)  # fmt: skip


def finding_rows(content: Content) -> list[list[str]]:
    """One row a finding (HEADS), on intention, the mean last; none where a table holds fewer than two of them.

    The printed means are over the findings that have an AUC here.
    """
    if "findings" not in content.results:
        return []
    rates: dict[str, float] = {}
    for threshold in content.thresholds:
        rates |= (threshold.get("numbers") or {}).get("base_rates", {})
    rows, printed = [], []
    for name in (name for name in FINDINGS if name in content.results):
        metrics = content.results[name]["intention"]
        area, found = metrics["auc"], metrics["sensitivity"]
        rows.append(
            [
                title(name, TITLES),
                str(found["n"]),
                str(area["n"]),
                *(interval(metrics[key]) for key in ("auc", "sensitivity", "specificity")),
                *(number(value, 4) for value in CHEST_AUC[name]),
                number(rates.get(name)),
                number(CHEST_BASE_RATES[name]),
            ]
        )
        printed += [CHEST_AUC[name]] if number(area["value"]) != "–" else []
    mean = record(content.results, "findings", "intention", "auc_mean")
    if printed and mean is not None:
        theirs = [number(value, 4) for value in np.mean(printed, axis=0)]
        rows.append([METRICS["auc_mean"], "", str(mean["n"]), interval(mean), "", "", *theirs, "", ""])
    return rows


def training_began(content: Content) -> list[tuple[str, str]]:
    """Where the training of stages began whose weights are told: from scratch, from a file, from a run."""
    told = [(t["stage"], (t.get("numbers") or {}).get("weights")) for t in content.thresholds]
    return [(f"weights of {stage_title(str(stage)).lower()}", weights) for stage, weights in told if weights]


def provisional_findings(stage: str, threshold: Mapping[str, Any]) -> list[str]:
    """A warning where thresholds of findings beside the target were chosen on few tune films."""
    own = (threshold.get("numbers") or {}).get("findings", {})
    if not (poor := [name for name, one in own.items() if one.get("provisional")]):
        return []
    many = f"{len(poor)} of {several(len(own), 'further finding', 'further findings')}"
    return [f"{stage}: the thresholds of {many} are provisional as well, chosen on fewer than 40 tune films with it."]
