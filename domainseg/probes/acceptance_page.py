"""The page of the acceptance probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainseg.bundle.override import told
from domainseg.probes.common import p_text
from domainseg.reporting.page import Page, Section, Table
from domainseg.reporting.words import interval, number

NAMES = {
    "auc": "AUC",
    "sensitivity": "Sensitivity at the frozen threshold",
    "specificity": "Specificity at the frozen threshold",
    "calibration_in_the_large": "Calibration in the large (0 is right)",
    "calibration_slope": "Calibration slope (1 is right)",
}
NEEDED = (
    "A threshold that is chosen for a sensitivity on few positives holds that sensitivity on those, not on the next "
    "ones. The figures hold whatever the scores look like (order statistics), for independent patients."
)
SHIFT = (
    "Local figures against the bundle's own test, on intention where stages exclude cases (an excluded positive is "
    "missed). The operating point counts as shifted where p is below 0.025, half of 0.05 for each of the two."
)


def short_table(record: Mapping[str, Any]) -> Table:
    """What is measured here, what the bundle's test had, and the difference."""
    rows = []
    for name, local in record["local"].items():
        shift = record["shift"].get(name)
        moved = (interval(shift), p_text(shift["p"])) if shift else ("–", "–")
        rows.append((NAMES[name], interval(local), interval(record["own"].get(name)), *moved))
    heads = ("", "Here (95 %)", "Bundle's test (95 %)", "Difference (95 %)", "p")
    return Table(heads, rows, f"{record['target']}: here and in the bundle's test", numeric=range(1, 5))


def page_of(record: Mapping[str, Any]) -> Page:
    """The report."""
    subtitle = (
        f"Target: {record['target']}, frozen threshold {number(record['frozen_threshold'], 4)}. {record['n']} local "
        f"cases, {record['positive']} positive and {record['negative']} negative"
    )
    lost = f"; {record['excluded']} of them without a score, judged as wrong" if record["excluded"] else ""
    made = [] if record["bundle"] is None else [told(entry) for entry in record["bundle"]["overrides"]]
    return Page(
        title="Acceptance",
        subtitle=f"{subtitle}{lost}.",
        brief=[record["verdict"], *_overridden(record)],
        warnings=[*record["said"], *(f"Threshold set anew before: {line}" for line in made)],
        sections=[
            Section("Has it shifted?", text=[SHIFT], tables=[short_table(record)]),
            Section("How many cases does a local threshold need?", text=[NEEDED], tables=[_needed(record)]),
            Section("A local threshold", text=_local(record), tables=[_threshold(record)]),
        ],
    )


def _needed(record: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"\N{PLUS-MINUS SIGN} {entry['precision']:g}"
            + (" (asked)" if entry["precision"] == record["precision"] else ""),
            "more than 20,000" if entry["positives"] is None else str(entry["positives"]),
            "–" if entry["cases"] is None else str(entry["cases"]),
            "yes"
            if entry["positives"] is not None and record["threshold"]["n_positive"] >= entry["positives"]
            else "no",
        )
        for entry in record["needed"]
    ]
    heads = (
        "Sensitivity of future cases within",
        "Positives needed",
        "Cases, at the local prevalence",
        "There are enough",
    )
    return Table(heads, rows, f"Rule {record['threshold']['rule']}, in 95 % of the places", numeric=(1, 2))


def _local(record: Mapping[str, Any]) -> list[str]:
    chosen = record["threshold"]
    few = " It is provisional: fewer than 40 positives chose it." if chosen["provisional"] else ""
    line = f"By rule {chosen['rule']} on {chosen['chosen_on']}: {number(chosen['value'], 4)}.{few}"
    used = "It is not used unless probe.override=true writes it into a copy of the bundle."
    return [f"{line} Judged on {chosen['judged_on']}. {used}"]


def _threshold(record: Mapping[str, Any]) -> Table:
    chosen = record["threshold"]
    points = (
        ("Frozen", record["frozen_threshold"], record["local"], None),
        ("Local", chosen["value"], chosen["judged"], chosen["future_sensitivity"]),
    )
    rows = [
        (name, number(value, 4), interval(at["sensitivity"]), interval(future), interval(at["specificity"]))
        for name, value, at, future in points
    ]
    heads = ("Threshold", "Value", "Sensitivity (95 %)", "Sensitivity of future cases (95 %)", "Specificity (95 %)")
    return Table(heads, rows, numeric=(1, 2, 3, 4))


def _overridden(record: Mapping[str, Any]) -> list[str]:
    if record["override"] is None:
        return []
    return [f"A bundle with the local threshold was written: {told(record['override'])}."]
