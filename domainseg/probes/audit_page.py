"""The audit as one page that somebody reads who knows neither this program nor the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainseg.probes.audit_figures import risk_map, score_bars, within_groups
from domainseg.probes.verdicts import ORDER, TITLES, furthest
from domainseg.reporting.page import Figure, Page, Section, Table, write_page
from domainseg.reporting.words import interval, number, several

Record = dict[str, Any]
_GROUP_HEADS = ("attribute", "group", "cases", "patients", "positive", "prevalence")
_BARS = (
    "Dot or square: median; thick: middle half; thin: middle 90 %. Bars of one colour are of cases with the same label."
)
_SOURCES = {"image": "films", "embedding": "embedding", "score": "scores"}

MEANING = (
    (
        "Detectable: a linear probe can tell from the films (or from what the network holds of them, or from the "
        "scores) to which group a case belongs. AUC, cross-validated by patient; of more than two groups the mean of "
        "each against the others. 0.5 is chance. Detectable alone is no fault: anatomy tells sex, and every scanner "
        "has its noise."
    ),
    (
        "Associated: the attribute tells of the label, without any image. AUC of ranking the cases by the attribute "
        "alone, and utility, the share of the label's uncertainty that the attribute takes away (mutual information, "
        "corrected for chance, over the label's entropy; after G-AUDIT, arXiv 2503.09969). A model that beats this "
        "AUC by little has shown little."
    ),
    (
        "Used: the score moves with the attribute among cases of one label. Shift: how often a case of the group "
        "outscores one from the other groups with the same label (0.5: no shift; van Elteren's test over both "
        "labels). Fall: how much of the AUC goes when the same cases are weighted so that attribute and label are "
        "independent."
    ),
    (
        "An alarm needs associated and used, each above a stated size, after Holm's correction over all questions of "
        "the audit. Its p-value is the larger of the two, that of used twice the smaller of shift and fall."
    ),
)
ASK = (
    (
        "Are the patients of one group more severely ill, so that the same label means more there? A column of "
        "severity (size of the lesion, laboratory value, ward) can be given as severity=[COLUMN]."
    ),
    (
        "Are the labels as good in every group? A report from an intensive care unit is written with other words; "
        "labels mined from reports may err differently by site."
    ),
    (
        "What of attributes that nobody wrote down: markers, tubes, positioning, the request? They are audited only "
        "through columns that go with them. The probe occlusion looks at markers and borders directly."
    ),
    (
        "Does the model hold at a site that it was not trained on? That is asked by +probe=cross_site, and in a new "
        "hospital by +probe=acceptance. This audit looks at the cases that it was given."
    ),
    (
        "Would removing the cue from the film change the score? An audit of tables compares different patients; only a "
        "changed film with the same patient shows a cause."
    ),
    "Is an effect below the stated size harmless? That depends on the use: the intervals say what is not excluded.",
)
ASK_BARE = (
    (
        "There is no model here yet: what can be learned need not be learned. Audit the trained model as well "
        "(bundle=DIR or predictions=FILE)."
    ),
    "Can the groups be balanced: negatives from the site of the positives, films of both kinds at each bed?",
    "What of attributes that nobody wrote down: markers, tubes, collimation?",
    "A linear probe on small pictures reads less than a network does: what it does not find may be there.",
    "Are labels as good in every group?",
)


def write(found: Record, path: Path) -> None:
    """Write the page of an audit (what audit.json holds) to ``path``."""
    write_page(page(found), path)


def page(found: Record) -> Page:
    """The page: brief, warnings, one table, a section a target, what is meant, what else to ask."""
    about, scored = found["about"], found["about"]["scored"]
    sections = [_overview(found)]
    sections += [
        (_target if scored else _bare_target)(target, whole, about) for target, whole in found["targets"].items()
    ]
    sections += [
        Section("What is meant", text=(MEANING if scored else MEANING[:2]) + (_sizes(about),)),
        Section("What a sceptical reader would still ask", text=ASK if scored else ASK_BARE),
    ]
    what = "a model's predictions" if scored else "a data set, before any model"
    return Page(
        title=f"What else can be learned here? Audit of {about['name']}"
        if not scored
        else f"What else did it learn? Audit of {about['name']}",
        subtitle=f"An audit of {what}: {several(about['cases'], 'case', 'cases')} of "
        f"{several(about['patients'], 'patient', 'patients')} (or groups that stand for them)"
        + (f"; {about['rows']:,} rows in the table" if about["rows"] > about["cases"] else "")
        + ". Intervals are 95 %.",
        brief=_brief(found),
        warnings=_warnings(found),
        sections=sections,
    )


def _sizes(about: Record) -> str:
    alarm = about["alarm"]
    common = (
        f"Stated sizes: AUC of the attribute alone at least {alarm['associated']:g}"
        + (
            f"; shift at least {alarm['shift']:g} from 0.5, or fall at least {alarm['fall']:g}"
            if about["scored"]
            else ""
        )
        + (f"; read from the films with AUC at least {alarm['detectable']:g}" if not about["scored"] else "")
    )
    return (
        f"{common}; level {alarm['level']:g}, Holm over {about['questions']} questions; groups, and labels within a "
        f"group, of fewer than {about['least']} patients are not compared. Patients are the units of every interval."
    )


def _all(found: Record) -> list[tuple[str, Record]]:
    records = [(target, record) for target, whole in found["targets"].items() for record in whole["attributes"]]
    return sorted(records, key=lambda each: ORDER.index(each[1]["verdict"]))


def _brief(found: Record) -> list[str]:
    records = _all(found)
    loud = _strongest_first([each for each in records if each[1]["verdict"] in ("alarm", "at hand")])
    questions = several(found["about"]["questions"], "question", "questions")
    one = [f"{record['attribute']} for {target}" for target, record in records if record["verdict"] == "inseparable"]
    few = sum(record["verdict"] in ("too few", "undecided") for _, record in records)
    if not loud:
        lines = [
            f"No alarm in {questions} (an attribute and a target each). That is no proof that there is no shortcut."
        ]
    else:
        named = ", ".join(f"{record['attribute']} for {target}" for target, record in loud[:8])
        more = f" and {len(loud) - 8} more" if len(loud) > 8 else ""
        word = (
            several(len(loud), "alarm", "alarms")
            if found["about"]["scored"]
            else several(len(loud), "shortcut at hand", "shortcuts at hand")
        )
        lines = [f"{word} in {questions}: {named}{more}."]
    if one:
        lines.insert(0, f"Cannot be told apart from the label: {', '.join(one)}. No score can be judged against these.")
    if few:
        lines.append(f"{several(few, 'question', 'questions')} could not be decided.")
    return [*lines, *(f"{target}: {record['said'][0]}" for target, record in loud[:3])]


def _strongest_first(loud: Sequence[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """By the fall of the AUC; of a manifest by the AUC of the attribute alone."""

    def size(each: tuple[str, Record]) -> float:
        record = each[1]
        if "used" in record:
            value = record["used"]["fall"]["difference"]["value"]
            return float(value) if value == value else 0.0
        return float(record["associated"]["auc"]["value"])

    return sorted(loud, key=size, reverse=True)


def _warnings(found: Record) -> list[str]:
    about = found["about"]
    lines = [
        "An alarm says that the score goes with the attribute among patients of one label, and that the attribute "
        "tells of the label. It does not say why: a shortcut, or patients who are more severely ill."
        if about["scored"]
        else "This audit says what could be learned instead of the disease, not what any model has learned."
    ]
    if about["scored"] and not about["severity"]:
        lines.append("No column of severity was given: case mix within a label is not ruled out anywhere on this page.")
    if about["scored"] and not about["films"]:
        lines.append(
            "No films were given: whether an attribute can be read from films was not asked, only from the scores."
        )
    skipped: dict[str, str] = {}
    for _, record in _all(found):
        if record["skipped"] is not None:
            skipped[record["attribute"]] = record["skipped"]
    if skipped:
        lines.append("Not asked: " + "; ".join(f"{name} ({why})" for name, why in skipped.items()) + ".")
    notes = {f"{record['attribute']}: {note}." for _, record in _all(found) for note in record["notes"]}
    return [*lines, *found["said"], *sorted(notes)]


def _overview(found: Record) -> Section:
    scored = found["about"]["scored"]
    sources = [s for s in _SOURCES if any(s in record.get("detectable", {}) for _, record in _all(found))]
    heads = ["target", "attribute", *(f"detectable: {_SOURCES[s]}" for s in sources), "associated: AUC alone"]
    heads += [
        "utility",
        *(("used: shift", "used: fall of the AUC", "p, Holm") if scored else ("risk", "p, Holm")),
        "verdict",
    ]
    rows = []
    for target, record in _all(found):
        if record["skipped"] is not None:
            continue
        cells = [target, record["attribute"]]
        cells += [interval(record["detectable"].get(source, {}).get("auc"), 2) for source in sources]
        cells += [interval(record["associated"]["auc"], 2), interval(record["associated"]["utility"])]
        if scored:
            used = record["used"].get("severity", record["used"])
            cells += [furthest(used["shift"], record["groups"], 2), interval(used["fall"]["difference"])]
        else:
            cells.append(interval(record.get("risk")))
        p = record["p_holm"]
        rows.append([*cells, "< 0.001" if p < 0.001 else number(p), TITLES[record["verdict"]]])
    note = (
        "Shift: of the group furthest from 0.5, how often its case outscores another of the same label; fall: AUC "
        "as it is minus matched" + (", both within bands of severity." if found["about"]["severity"] else ".")
        if scored
        else "Risk, after G-AUDIT: utility times (2 AUC - 1) of the probe on the films; 0 none, 1 the label itself."
    )
    return Section("In one table", tables=[Table(heads, rows, note=note, numeric=range(2, len(heads) - 1))])


def _target(target: str, whole: Record, about: Record) -> Section:
    asked = [record for record in whole["attributes"] if record["skipped"] is None]
    text = [
        (
            f"AUC {interval(whole['auc'])} on {several(whole['n'], 'case', 'cases')}, {whole['positives']} of them "
            "positive. A model of all attributes together, without image or score: AUC "
            f"{interval(whole['auc_by_metadata'])}."
        ),
        *(f"{record['attribute']}, {TITLES[record['verdict']]}: {' '.join(record['said'])}" for record in asked),
    ]
    levels = Table(
        ["attribute", "pooled AUC", "within groups", "attribute alone", "as it is", "matched", "fall"],
        [
            [
                record["attribute"],
                *(interval(metric) for metric in (record["auc"], record["auc_within"], record["associated"]["auc"])),
                number(record["used"]["fall"]["as_is"]),
                number(record["used"]["fall"]["matched"]),
                interval(record["used"]["fall"]["difference"]),
            ]
            for record in asked
        ],
        caption="The pooled AUC beside what is left of it within groups, and what the attribute gets alone",
        note="Within groups: only cases of one group are compared. Matched: weighted so that attribute and label are "
        "independent; on groups with enough patients of both labels, so that 'as it is' can differ from pooled.",
        numeric=range(1, 7),
    )
    drawn = (
        (within_groups(whole), f"{target}: AUC within each group (positives of cases); dotted: all cases pooled."),
        (score_bars(whole), f"{target}: scores by group and label. {_BARS}"),
    )
    figures = [Figure(svg, caption) for svg, caption in drawn if svg is not None]
    return Section(target, text=text, tables=[levels, _groups(asked)] if asked else [], figures=figures)


def _groups(asked: Sequence[Record]) -> Table:
    return Table(
        [*_GROUP_HEADS, "AUC within", "shift, label 1", "shift, label 0"],
        [
            [
                record["attribute"],
                group["name"] + (f" (+{group['unscored']} without score)" if group["unscored"] else ""),
                *(str(group[name]) for name in ("n", "patients", "positives")),
                interval(group["prevalence"]),
                *(interval(group[name]) for name in ("auc", "shift_positive", "shift_negative")),
            ]
            for record in asked
            for group in record["groups"]
        ],
        caption="Groups",
        note="Shift: how often a case of the group outscores one of the others with the same label; 0.5: no shift.",
        numeric=range(2, 9),
    )


def _bare_target(target: str, whole: Record, about: Record) -> Section:
    asked = [record for record in whole["attributes"] if record["skipped"] is None]
    text = [
        (
            f"{several(whole['n'], 'case', 'cases')} with a label, {whole['positives']} of them positive. A model of "
            f"all attributes together, without any image: AUC {interval(whole['auc_by_metadata'])}. That is what a "
            "network has to beat before it has shown anything."
        ),
        *(f"{record['attribute']}, {TITLES[record['verdict']]}: {' '.join(record['said'])}" for record in asked),
    ]
    groups = Table(
        _GROUP_HEADS,
        [
            [
                record["attribute"],
                group["name"],
                *(str(group[name]) for name in ("n", "patients", "positives")),
                interval(group["prevalence"]),
            ]
            for record in asked
            for group in record["groups"]
        ],
        caption="Groups",
        numeric=range(2, 6),
    )
    drawn = risk_map(asked, about["alarm"])
    caption = f"{target}: attributes in the upper right corner can be read from the films and tell of the label."
    return Section(
        target, text=text, tables=[groups] if asked else [], figures=[Figure(drawn, caption)] if drawn else []
    )
