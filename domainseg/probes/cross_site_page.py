"""The page of the cross-site table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domainseg.probes.common import p_text
from domainseg.probes.effects import holm_of_known
from domainseg.reporting.page import Figure, Page, Section, Table
from domainseg.reporting.words import interval, number

HEADS = ("Trained on", "Kind", "Tested on", "n", "Positive", "AUC (95 %)", "Acc.", "Sens.", "Spec.", "PPV", "NPV")
NUMERIC = tuple(range(3, len(HEADS)))
MEASURES = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
INTRO = (
    "Internal: the sites that the model was trained on. Subset: some of them. External: others only. Superset: its own "
    "and others. A pooled AUC also rewards telling the sites apart: “within sites” counts only pairs of cases of the "
    "same site, “site alone” is what ranking every case by the prevalence of its site achieves, without looking at the "
    "image."
)
POINTS = {
    "tune": "At the threshold that the tables give (of our runs frozen on tune), as the model would be used",
    "on_test": "At the threshold set on the test set itself for 95 % sensitivity, as in Zech et al. 2018: to compare "
    "with their table, never to use",
}


def short_table(record: Mapping[str, Any]) -> Table:
    """What the terminal shows: each row's AUC, and beside a pooled one what is left within sites."""
    heads = (*HEADS[:6], "Within sites", "Site alone")
    return Table(heads, [(*_case(row), *_sites(row)) for row in record["rows"]], "AUC by site", numeric=range(3, 8))


def page_of(record: Mapping[str, Any]) -> Page:
    """The whole report."""
    return Page(
        title="Cross-site table",
        subtitle=f"Target: {record['target']}.",
        brief=findings(record),
        warnings=record["said"],
        sections=[
            Section(
                "AUC by site",
                text=[INTRO],
                tables=[short_table(record), _within(record)],
                figures=[Figure(drawn(record), "AUC with 95 % intervals. Bar: AUC of ranking by site alone.")],
            ),
            Section(
                "Internal against external",
                text=["Different patients: unpaired test. p is corrected (Holm) over the rows of this table."],
                tables=[_tests(record["internal_external"], ("trained_on", "test"), ("Trained on", "Tested on"))],
            ),
            Section(
                "Two models on the same cases",
                text=["Paired test of the first model's AUC minus the second's, corrected in the same way."],
                tables=[_tests(record["models"], ("a", "b", "test"), ("First", "Second", "Tested on"))],
            ),
            Section(
                "Operating points",
                text=["Clustered by patient. PPV and NPV are those of each test set's own prevalence."],
                tables=[_points(record, name, caption) for name, caption in POINTS.items()],
            ),
            Section(
                "Sites",
                tables=[
                    Table(
                        ("Site", "n", "Positive", "Prevalence (95 %)"),
                        [
                            (site, str(found["n"]), str(found["positive"]), interval(found["prevalence"]))
                            for site, found in record["sites"].items()
                        ],
                        numeric=(1, 2, 3),
                    )
                ],
            ),
        ],
    )


def findings(record: Mapping[str, Any]) -> list[str]:
    """The result in a few sentences."""
    tests = record["internal_external"]
    judged = [test for test in tests if test["verdict"] != "too few"]
    worse = [test for test in judged if test["verdict"] == "worse elsewhere"]
    said = []
    if judged:
        line = f"In {len(worse)} of {len(judged)} comparisons a model did better on its own sites than elsewhere"
        said.append(line + (": " + "; ".join(_drop(test) for test in worse) + "." if worse else "."))
    if few := len(tests) - len(judged):
        said.append(f"{few} comparisons have too few cases for a verdict.")
    pooled = [row for row in record["rows"] if "within_sites" in row and row["kind"] == "internal"]
    for row in pooled:
        said.append(
            f"{row['trained_on']} on its own sites together: AUC {interval(row['auc'])}, but "
            f"{interval(row['within_sites'])} within sites; ranking by site alone gives {interval(row['site_alone'])}."
        )
    return said


def _drop(test: Mapping[str, Any]) -> str:
    p = p_text(test["p_holm"])
    return f"{test['trained_on']} than on {test['test']}, by {interval(test)}, p {p if p[0] == '<' else f'= {p}'}"


def _case(row: Mapping[str, Any]) -> tuple[str, ...]:
    auc = interval(row["auc"]) + (" (too few)" if row["few"] else "")
    return row["trained_on"], row["kind"], row["test"], str(row["n"]), str(row["positive"]), auc


def _sites(row: Mapping[str, Any]) -> tuple[str, str]:
    return interval(row.get("within_sites")), interval(row.get("site_alone"))


def _within(record: Mapping[str, Any]) -> Table:
    pooled = [row for row in record["rows"] if "within" in row]
    sites = list(record["sites"])
    rows = [
        (
            row["trained_on"],
            row["test"],
            interval(row["auc"]),
            *(interval(row["within"].get(site)) for site in sites),
            f"{interval(row['over_site'])}, p {p_text(p)}",
        )
        for row, p in zip(pooled, holm_of_known([row["over_site"]["p"] for row in pooled]), strict=True)
    ]
    heads = (
        "Trained on",
        "Tested on",
        "Pooled AUC",
        *(f"Within {site}" for site in sites),
        "Model minus site alone, p (Holm)",
    )
    note = "The prevalence by which sites are ranked is that of the test labels: the best that site alone can do."
    return Table(heads, rows, "Pooled AUC and the AUC within each site", note, range(2, len(heads)))


def _points(record: Mapping[str, Any], name: str, caption: str) -> Table:
    rows = [(*_case(row)[:6], *(number(row[name][measure]["value"]) for measure in MEASURES)) for row in record["rows"]]
    note = "Intervals are in cross_site.json."
    if all(cells[6:] == ("–",) * 5 for cells in rows):
        note = "The table has no frozen thresholds (threshold_<target>)."
    return Table(HEADS, rows, caption, note, NUMERIC)


def _tests(tests: Sequence[Mapping[str, Any]], names: Sequence[str], heads: Sequence[str]) -> Table:
    rows = [
        (*(test[name] for name in names), interval(test), p_text(test["p"]), p_text(test["p_holm"]), test["verdict"])
        for test in tests
    ]
    first = len(heads)
    return Table(
        (*heads, "Difference of AUC (95 %)", "p", "p (Holm)", "Verdict"), rows, numeric=(first, first + 1, first + 2)
    )


def drawn(record: Mapping[str, Any]) -> str:
    """AUC of every row with its interval, and the bar of site alone where sites are pooled."""
    from domainseg.reporting.figures import INK, MUTED, NEGATIVE, POSITIVE, as_svg, drawing

    rows = record["rows"]
    with drawing(1, height=0.6 + 0.26 * len(rows), width=6.5) as (figure, (axis,)):
        for place, row in enumerate(rows):
            auc, colour = row["auc"], POSITIVE if row["kind"] == "external" else NEGATIVE
            axis.plot([auc["low"], auc["high"]], [place, place], color=colour, lw=1.5)
            axis.plot(auc["value"], place, marker="s" if row["kind"] == "external" else "o", color=colour, ms=4)
            if "site_alone" in row:
                axis.plot(row["site_alone"]["value"], place, marker="|", color=INK, ms=9, mew=2)
        axis.axvline(0.5, color=MUTED, lw=0.8, ls=":")
        axis.set_yticks(range(len(rows)), [f"{row['trained_on']} on {row['test']} ({row['kind']})" for row in rows])
        axis.invert_yaxis()
        axis.set_xlabel("AUC")
        return as_svg(figure)
