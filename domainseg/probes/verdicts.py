"""From findings to verdicts in words. An alarm needs associated and used, after Holm's correction over the audit.

The p-value of "associated and used" is the larger of the two (both must hold); that of used is twice the smaller of
shift and fall (one of them is enough). An effect below its stated size counts as p = 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domainseg.probes.effects import holm
from domainseg.reporting.words import interval, number

Record = dict[str, Any]

TITLES = {
    "alarm": "ALARM",
    "suspected": "suspected",
    "undecided": "undecided",
    "case mix": "case mix",
    "moves": "moves the score only",
    "uneven": "works unevenly",
    "associated": "associated only",
    "nothing": "nothing found",
    "inseparable": "cannot be told apart",
    "too few": "too few",
    "skipped": "not asked",
    "at hand": "SHORTCUT AT HAND",
    "readable": "readable only",
    "unread": "associated, films not read",
}
ORDER = tuple(TITLES)


def p_associated(record: Record, sizes: Mapping[str, float]) -> float:
    """p of association, 1 below the size of effect."""
    return _p(record["associated"]["p"], record["associated"]["auc"]["value"] >= sizes["associated"])


def p_used(used: Record, sizes: Mapping[str, float], *, along: bool = False) -> float:
    """p of use: twice the smaller p of a shift and of a fall, each 1 below its size.

    along: a shift counts only where groups that are more often positive have the higher scores, as evidence would.
    """
    moved = _p(
        used["shift"]["p"], used["shift"]["largest"] >= sizes["shift"] and not (along and used["shift"]["along"] <= 0)
    )
    fell = _p(used["fall"]["p"], used["fall"]["difference"]["value"] >= sizes["fall"])
    return min(1.0, 2 * min(moved, fell))


def p_readable(record: Record, sizes: Mapping[str, float]) -> float:
    """p of the attribute being readable from the films, 1 below its size."""
    image = record["detectable"].get("image")
    return 1.0 if image is None else _p(image["p"], image["auc"]["value"] >= sizes["detectable"])


def _p(p: float, large: bool) -> float:
    return float(p) if large and np.isfinite(p) else 1.0


def judge(records: Sequence[Record], alarm: Mapping[str, float]) -> None:
    """Add verdict, said (sentences), p and p_holm to each finding. alarm: level, and the sizes of effect."""
    asked = [record for record in records if record["skipped"] is None]
    for record in asked:
        record["p"] = _p_both(record, alarm)
    for record, adjusted in zip(asked, holm([record["p"] for record in asked]), strict=True):
        record["p_holm"] = adjusted
    scored = [record for record in asked if "used" in record]
    for record, adjusted in zip(scored, holm([record["used"]["uneven"]["p"] for record in scored]), strict=True):
        record["used"]["uneven"]["p_holm"] = adjusted
    for record in records:
        if record["skipped"] is not None:
            few = record["skipped"].startswith("too few")
            record["verdict"], record["said"] = "too few" if few else "skipped", [_sentence(record["skipped"])]
        else:
            record["verdict"], record["said"] = _model(record, alarm) if "used" in record else _bare(record, alarm)
            if "used" in record and record["verdict"] != "uneven" and _is_uneven(record, alarm):
                record["said"].append(_unevenly(record))


def _p_both(record: Record, alarm: Mapping[str, float]) -> float:
    if "used" in record:
        return max(p_associated(record, alarm), p_used(_adjusted(record), alarm, along=True))
    return max(p_associated(record, alarm), p_readable(record, alarm))


def _adjusted(record: Record) -> Record:
    """The finding of use that counts: within bands of severity where they are given."""
    used: Record = record["used"]
    within: Record = used.get("severity", used)
    return within


def _model(record: Record, alarm: Mapping[str, float]) -> tuple[str, list[str]]:
    level, used, name = alarm["level"], record["used"], record["attribute"]
    has_severity = "severity" in used
    associated = p_associated(record, alarm) < level
    plain, counted = p_used(used, alarm) < level, p_used(_adjusted(record), alarm) < level
    how = _how(_adjusted(record), alarm, record)
    if len(record["one_class_groups"]) == len(record["groups"]):
        return "inseparable", [
            (
                f"No group of {name} has both labels: {name} and label are one and the same here. Ranking by {name} "
                f"alone has AUC {interval(record['associated']['auc'])}, and nothing in this table can show whether a "
                "score rests on the disease."
            )
        ]
    if not np.isfinite(used["shift"]["p"]) and not np.isfinite(used["fall"]["p"]):
        return "too few", ["Too few patients of one label in two groups: whether the score moves cannot be judged."]
    if has_severity and not np.isfinite(_adjusted(record)["shift"]["p"]):
        return "undecided", ["Too few patients within bands of severity to tell use from case mix."]
    ruled = (
        f"Differences of severity between the groups, as far as the {used['severity']['bands']} bands of severity say, "
        "are ruled out as the reason; those the bands do not record are not."
        if has_severity
        else "Not ruled out: that patients with the same label are more severely ill in one group than in another "
        "(case mix within the label). No column of severity was given; severity=[COLUMN] asks for it."
    )
    if record["p_holm"] < level:
        return "alarm", [
            f"{name} tells of the label ({_tells(record)}), and the score moves with it: {how}",
            ruled,
            *_risk(name),
        ]
    if associated and p_used(_adjusted(record), alarm, along=True) < level:
        return "suspected", [
            (
                f"{name} tells of the label ({_tells(record)}) and {how} Not certain after correction for the number "
                f"of questions of this audit (p {_pvalue(record['p_holm'])})."
            ),
            ruled,
        ]
    if has_severity and plain and not counted:
        after = used["severity"]
        if after["shift"]["largest"] < alarm["shift"] and not after["fall"]["difference"]["value"] >= alarm["fall"]:
            return "case mix", [
                (
                    f"Case mix: among cases of one label the score differs between groups of {name} (shift: "
                    f"{furthest(used['shift'], record['groups'])}), but not among cases of one label and severity "
                    f"({furthest(after['shift'], record['groups'])}): the patients differ."
                )
            ]
        return "undecided", [
            (
                f"The score differs between groups of {name} of one label; within bands of severity the difference is "
                "no longer certain but not small either: neither use nor case mix is shown."
            )
        ]
    if counted and associated:
        return "moves", [
            (
                f"The score moves with {name} among cases of one label ({how.rstrip('.')}), but not towards groups "
                "that are more often positive: the AUC gains nothing by it (fall "
                f"{interval(used['fall']['difference'])})."
            ),
            ruled,
        ]
    if counted:
        return "moves", [
            (
                f"The score moves with {name} among cases of one label ({how.rstrip('.')}), but {name} tells little "
                f"of the label here ({_tells(record)}): no gain for the AUC, a danger for one threshold for all "
                f"groups. {ruled}"
            )
        ]
    crude = used["crude"]
    if _is_uneven(record, alarm):
        return "uneven", [
            (
                f"{_unevenly(record)} The score does not move with {name} in the same way among both labels, so it is "
                f"no evidence for the label by itself (fall of the AUC {interval(used['fall']['difference'])}); but "
                "one threshold for all groups gives them different sensitivities and specificities."
            )
        ]
    if associated and not np.isfinite(used["fall"]["p"]):
        return "undecided", [
            (
                f"{name} tells of the label ({_tells(record)}), and no two groups have enough patients of both labels: "
                "these cases cannot show whether the score uses it. Cases of both labels from two groups can."
            )
        ]
    if associated and crude["largest"] >= alarm["shift"] and _p(crude["p"], True) < level:
        return "case mix", [
            (
                f"Case mix: scores differ between groups of {name} (shift: {furthest(crude, record['groups'])}) as "
                "their prevalences do; among cases of one label no use is found (shift: "
                f"{furthest(used['shift'], record['groups'])}, fall of the AUC {interval(used['fall']['difference'])})."
            )
        ]
    bound = f"fall of the AUC when matched {interval(used['fall']['difference'])}"
    if associated:
        return "associated", [f"{name} tells of the label ({_tells(record)}); no use by the score is found ({bound})."]
    return "nothing", [f"Neither a lasting association nor use is found ({bound})."]


def _how(used: Record, alarm: Mapping[str, float], record: Record) -> str:
    """The shift and the fall that count, in words."""
    out = []
    if _p(used["shift"]["p"], used["shift"]["largest"] >= alarm["shift"]) < alarm["level"]:
        place = _furthest(used["shift"])
        out.append(
            f"a case of {record['groups'][place]['name']} outscores one of the same label from the other groups with "
            f"probability {interval(used['shift']['theta'][place])}, 0.5 being no difference."
        )
    if _p(used["fall"]["p"], used["fall"]["difference"]["value"] >= alarm["fall"]) < alarm["level"]:
        out.append(
            f"The AUC is {number(used['fall']['as_is'])} as it is and {number(used['fall']['matched'])} where "
            f"{record['attribute']} is made independent of the label: a fall of {interval(used['fall']['difference'])}."
        )
    return " ".join(out) or "no shift and no fall of the stated size."


def _furthest(shift: Record) -> int:
    """The number of the group that lies furthest from 0.5; of two that lie as far the higher one."""
    values = [theta["value"] if theta else 0.5 for theta in shift["theta"]]
    return max(range(len(values)), key=lambda g: (round(abs(values[g] - 0.5), 9), values[g]))


def furthest(shift: Record, groups: Sequence[Record], digits: int = 3) -> str:
    """The group that lies furthest from 0.5, and where it lies, as people write it; a dash without any."""
    place = _furthest(shift)
    found = shift["theta"][place]
    return "–" if found is None else f"{groups[place]['name']} {interval(found, digits)}"


def _risk(name: str) -> list[str]:
    """What to say of attributes that may be causes of a disease themselves."""
    if name not in ("age", "sex"):
        return []
    return [
        f"{name.capitalize()} can be a risk factor in its own right: whether a score may use it is for people to say."
    ]


def _is_uneven(record: Record, alarm: Mapping[str, float]) -> bool:
    found = record["used"]["uneven"]
    return bool(found["range"] >= alarm["uneven"] and found["p_holm"] < alarm["level"])


def _unevenly(record: Record) -> str:
    """Between which groups the AUC differs most."""
    known = [record["groups"][number] for number in record["used"]["uneven"]["groups"]]
    best, worst = (pick(known, key=lambda group: group["auc"]["value"]) for pick in (max, min))
    return (
        f"Labels are told apart unevenly: AUC {interval(best['auc'])} within {best['name']}, {interval(worst['auc'])} "
        f"within {worst['name']}."
    )


_SAME = (
    "No group of {name} has both labels: a model that reads only {name} would look perfect here, and no test on these "
    "films alone can tell it from one that reads the disease."
)


def _bare(record: Record, alarm: Mapping[str, float]) -> tuple[str, list[str]]:
    """Of a manifest alone: is there something that tells of the label and can be read from the films?"""
    name, image = record["attribute"], record["detectable"].get("image")
    associated = p_associated(record, alarm) < alarm["level"]
    tells = f"{name} tells of the label ({_tells(record)})"
    inseparable = len(record["one_class_groups"]) == len(record["groups"])
    same = [_SAME.format(name=name)] if inseparable else []
    if image is None:
        said = tells if associated else f"{name} tells little of the label ({_tells(record)})"
        return ("unread" if associated else "nothing"), [f"{said}; the films were not read.", *same]
    reads = f"read from the films with AUC {interval(image['auc'])}"
    readable = p_readable(record, alarm) < alarm["level"]
    if record["p_holm"] < alarm["level"]:
        return "at hand", [f"{tells} and is {reads}: a model can learn it in place of the disease.", *same]
    if associated and readable:
        return "suspected", [
            f"{tells} and is {reads}, not certain after correction for the number of questions.",
            *same,
        ]
    if associated:
        return "associated", [
            f"{tells}; a linear probe does not read it from the films ({interval(image['auc'])}).",
            *same,
        ]
    if readable:
        return "readable", [f"{name} is {reads}, but tells little of the label here ({_tells(record)})."]
    return "nothing", [f"{name} tells little of the label ({_tells(record)}), and is not {reads.replace('with', ':')}."]


def _tells(record: Record) -> str:
    return f"AUC of {record['attribute']} alone {interval(record['associated']['auc'])}"


def _pvalue(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
