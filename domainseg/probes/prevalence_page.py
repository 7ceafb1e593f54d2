"""The page of engineered prevalence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domainseg.probes.common import p_text
from domainseg.probes.effects import holm_of_known
from domainseg.reporting.page import Figure, Page, Section, Table
from domainseg.reporting.words import interval, number

WHERE = {
    "internal": "Inside: its own test cohort",
    "external": "Outside: other sites",
    "balanced": "The balanced test cohort of the two sites",
}
TEXT = (
    "Cohorts have the same size and the same share of positives, half of the films from each site; only how positives "
    "divide between the sites differs. A model that learns the site gains inside, where the site tells of the label, "
    "and loses where it does not."
)
TREND = (
    "Change of AUC for each doubling of the ratio, over all cohorts, whichever site has more positives. Its variance "
    "counts that models are judged on the same patients, not that training again would give other models."
)


def short_table(record: Mapping[str, Any]) -> Table:
    """One row a cohort: what was drawn, or how its model did."""
    if not record["cohorts"]:
        return _drawn(record["drawn"])
    names = [name for name in WHERE if name in record["cohorts"][0]]
    rows = [
        (entry["cohort"], f"{entry['ratio']:g}", *(_cell(entry, name) for name in names)) for entry in record["cohorts"]
    ]
    heads = ("Trained on", "Ratio", *(f"AUC, {name}" for name in names))
    return Table(heads, rows, f"{record['target']}: engineered prevalence", numeric=range(1, len(heads)))


def page_of(record: Mapping[str, Any]) -> Page:
    """The report."""
    sections = [Section("Cohorts", text=[TEXT], tables=[_drawn(record["drawn"])])] if record["drawn"] else []
    if record["cohorts"]:
        adjusted = holm_of_known([np.nan if entry["few"] else entry["p"] for entry in record["trends"]])
        trends = [
            (WHERE[entry["where"]], interval(entry), "too few" if entry["few"] else p_text(p), str(entry["n"]))
            for entry, p in zip(record["trends"], adjusted, strict=True)
        ]
        heads = ("Tested", "AUC for each doubling (95 %)", "p (Holm)", "n")
        figures = [Figure(_drawing(record["cohorts"]), "AUC over the ratio of prevalences, 95 % intervals")]
        sections += [
            Section("AUC by imbalance", text=[TEXT], tables=[short_table(record)], figures=figures),
            Section("Trend", text=[TREND], tables=[Table(heads, trends, numeric=(1, 2, 3))]),
        ]
    return Page(
        title="Engineered prevalence",
        subtitle=f"Target: {record['target']}, sites {' and '.join(record['sites'])}.",
        brief=[record["verdict"]],
        warnings=record["said"],
        sections=sections,
    )


def _cell(entry: Mapping[str, Any], name: str) -> str:
    return interval(entry[name]) + (" (too few)" if entry[f"{name}_few"] else "")


def _drawn(drawn: Mapping[str, Any]) -> Table:
    kinds = list(next(iter(drawn["counts"].values())))
    pairs = list(zip(kinds[::2], kinds[1::2], strict=True))
    rows = [(name, *(f"{counts[yes]} + {counts[no]}" for yes, no in pairs)) for name, counts in drawn["counts"].items()]
    share = number(100 * drawn["prevalence"], 1)
    note = f"{share} % of each cohort are positive. {drawn['external']} films of other sites are tested as well."
    heads = ("Cohort", *(yes.removesuffix(", positive") for yes, _ in pairs))
    return Table(heads, rows, "Films of each cohort, positive + negative", note, range(1, len(heads)))


def _drawing(cohorts: Sequence[Mapping[str, Any]]) -> str:
    from domainseg.reporting.figures import INK, MUTED, NEGATIVE, POSITIVE, as_svg, drawing

    sites = sorted({entry["site"] for entry in cohorts} - {""})
    signs = [(-1 if entry["site"] == sites[0] else 1) * np.log2(entry["ratio"]) for entry in cohorts]
    order = np.argsort(signs)
    with drawing(1, height=3.3, width=5.5) as (figure, (axis,)):
        for shift, (name, colour) in enumerate((("internal", NEGATIVE), ("external", POSITIVE), ("balanced", INK))):
            if name not in cohorts[0]:
                continue
            at = np.array(signs)[order] + 0.06 * (shift - 1)
            auc = np.array([[cohorts[k][name][key] for key in ("value", "low", "high")] for k in order])
            axis.plot(at, auc[:, 0], color=colour, marker="os^"[shift], ms=4, ls=("-", "--", ":")[shift], label=name)
            axis.vlines(at, auc[:, 1], auc[:, 2], color=colour, lw=1)
        axis.axhline(0.5, color=MUTED, lw=0.8, ls=":")
        axis.set_xticks(sorted(set(signs)), [cohorts[k]["cohort"] for k in order])
        axis.set(ylabel="AUC", ylim=(0, 1))
        axis.legend(loc="lower left")
        return as_svg(figure)
