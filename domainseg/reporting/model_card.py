"""MODEL_CARD.md of a bundle: what it is for, what it learned from, how well it did, and what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from domainseg.reporting import sections, sections_findings, sections_volume
from domainseg.reporting.content import Content
from domainseg.reporting.words import CHESTS, EXAMS, REASONS, STAGES, TITLES, Nouns, number, title

TEMPLATE = "model_card.md"

SIMULATED = (
    "Trained and tested on simulated {images}: the figures say that the method works on those, not that it works in a "
    "hospital."
)
ALWAYS = (
    "The figures hold for {images} such as those of the test split: sensitivity and specificity move with the cases.",
    "{A} {case} that was excluded{or_not_found} got no answer: it is not a healthy one.",
)
OF_EXAMS = (
    "It looks for fresh and subacute bleeds on CT without contrast: an exam without a call is no normal one.",
    "Scores of types rank exams; they are no probabilities. A type is a guess from place, shape and density.",
    "A called exam always shows a lesion: the place that was taken for a bleed. In a normal exam that is none.",
    "Volumes are those of called lesions. Exported pictures have no spacing: there they are unknown.",
    "Groups by age tell whether children were among the exams; where none were, it has not been tested on them.",
)
OF_CHESTS = (
    "Truth is what the manifest says: labels that were mined from reports are wrong at times.",
    "The whole film is read at 224 px: small findings are lost, and what lies outside the lungs can raise a score.",
    "A map shows what raised a score in cells of a seventh of the film, not where a finding is.",
    "A film without a call is no normal one: only the findings above were learned.",
)
NUMBERS = {
    "level": "a candidate's voxels: probability from",
    "outline": "outline: probability from",
    "smallest": "a candidate's smallest size, voxels of the slabs' grid",
    "presence": "weight of the slice's answer beside the voxels'",
    "box_level": "boxes: score from (detector only)",
    "overlap": "boxes are one from this overlap, IoU (detector only)",
    "mask_weight": "weight of the mask beside the box (detector only)",
    "lens_offset": "shape as a sign of epidural against subdural: log-odds at a log thickness of 0",
    "lens_slope": "the same: log-odds a unit of log thickness; 0: shape says nothing",
}


def model_card(record: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The card, in Markdown, from bundle.json (``record``) and metrics.json (``metrics``)."""
    # Names of sites, devices and data come from tables and films: they are shown and never formatted.
    record = {**record, "data": _inert(record["data"]), "envelope": _inert(record["envelope"])}
    target = str(record["target"])
    content = Content(
        name=str(record["pipeline"]),
        metrics=dict(metrics),
        config={"target": target},
        thresholds=[{"stage": stage["name"], **stage["chosen"]} for stage in record["stages"] if stage["chosen"]],
    )
    words, types = content.nouns, sections_volume.type_rows(content)
    groups = [row for row in sections.group_rows(content, target) if row["n"]]
    envelope, exclusions = record["envelope"], record["data"].get("exclusions")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(
        record={"bf16": None, **record, "data": {"judged": "", "cohort": None, **record["data"]}},
        main=title(target, TITLES),
        words=words,
        exams=words == EXAMS,
        chests=words == CHESTS,
        began=sections_findings.training_began(content),
        finding_heads=sections_findings.HEADS,
        findings=sections_findings.finding_rows(content),
        label=record["labels"][target],
        split=content.split,
        stages=[_stage_row(stage, record["labels"]) for stage in record["stages"]],
        **_split_rows(record["data"]["splits"], record["labels"], words),
        brief=sections.brief(content),
        figures=[
            (block["title"], row["name"], row["intention"], row["conditional"], row["n"], row["patients"])
            for block in sections.key_figures(content)
            for row in block["rows"]
        ],
        type_heads=["Type", "Exams with it", *types["heads"]] if types else [],
        types=[(row["title"], row["n"], *row["cells"]) for row in types["rows"]] if types else [],
        numbers=_number_rows(record["stages"]),
        groups=[
            (row["column"], _inert(row["group"]), *(row[key] for key in ("n", "positives", "patients")), *row["cells"])
            for row in groups
        ],
        group_heads=["Group", "Value", "n", "Positive", "Patients", *sections.group_heads(target, groups)],
        thresholds=[
            tuple(row[key] for key in ("stage", "value", "rule", "chosen_on", "cases", "kept", "remark"))
            for row in sections.thresholds(content)
        ],
        exclusions=exclusions,
        excluded=[
            (title(row["stage"], STAGES), title(row["reason"], REASONS), row["films"], row["rows"])
            for row in (exclusions or {"reasons": []})["reasons"]
        ],
        envelope=envelope,
        measured=envelope.get("volumes" if words == EXAMS else "films"),
        inputs=_input_rows(envelope),
        few=envelope.get("few"),
        limits=[*_limits(words, simulated=record["data"]["simulated"]), *sections.warnings(content)],
        parity_heads=["Stage", "Compared", "Logit; of the cascade any score", "Head centre, px"][
            : 3 + (words != EXAMS)
        ],
        parity=[row[: 3 + (words != EXAMS)] for row in _parity_rows(record["parity"])],
        bf16=_bf16_rows(record),
        versions=[
            (when, ", ".join(f"{name} {version}" for name, version in found.items()))
            for when, found in record["versions"].items()
        ],
    )


def _inert(value: Any) -> Any:
    """Texts, in nested mappings and lists too, as Markdown shows them: on one line, without a meaning of their own."""
    if isinstance(value, str):
        return re.sub(r"([\\`*\[\]<>])", r"\\\1", " ".join(value.split())).replace("|", "/")
    if isinstance(value, Mapping):
        return {_inert(key): _inert(item) for key, item in value.items()}
    return [_inert(item) for item in value] if isinstance(value, list) else value


def _limits(words: Nouns, *, simulated: bool) -> list[str]:
    """What holds for every bundle of films or of exams."""
    lines = [*([SIMULATED] if simulated else []), *ALWAYS]
    a = "An" if words == EXAMS else "A"
    not_found = "" if words in (EXAMS, CHESTS) else " or not found"
    told = [line.format(images=words.images, case=words.case, A=a, or_not_found=not_found) for line in lines]
    return told + list(OF_EXAMS if words == EXAMS else OF_CHESTS if words == CHESTS else ())


def _number_rows(stages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Settings of the decisions on exams, most of them chosen on tune."""
    return [
        (title(stage["name"], TITLES), NUMBERS.get(name, name.replace("_", " ")), f"{value:.4g}")
        for stage in stages
        for name, value in stage.get("decision", {}).items()
        if isinstance(value, (int, float)) and name != "version"
    ]


def _stage_row(stage: Mapping[str, Any], labels: Mapping[str, Any]) -> tuple[str, ...]:
    first = stage["preprocessing"][0]
    size = f"{first['size']} x {first['size']}"
    if first["op"] == "slabs":
        size += f", slabs of {first['slices']} slices in {len(stage['preprocessing']) - 1} windows"
    elif first["op"] == "projections":
        size += ", projections along three axes"
    return title(stage["name"], TITLES), labels[stage["target"]]["question"], size, str(stage["batch"])


def _split_rows(splits: Mapping[str, Any], known: Mapping[str, Any], words: Nouns) -> dict[str, Any]:
    of_exams = words == EXAMS
    sites = sorted({site for split in splits.values() for site in split.get("sites", {})})
    return {
        "split_heads": ["Split", words.images.capitalize(), "Patients", *(f"Site {site}" for site in sites), "SHA-256"],
        "splits": [
            (
                *(name, split["films"], split.get("patients", "–")),
                *(split.get("sites", {}).get(site, 0) for site in sites),
                split["sha256"][:12],
            )
            for name, split in splits.items()
        ],
        "labels": [
            (
                title(target, TITLES),
                name,
                found["positive"],
                found["negative"],
                words.images if of_exams else found["of"],
            )
            for target in known
            for name, split in splits.items()
            if (found := split.get("labels", {}).get(target)) is not None
        ],
    }


def _input_rows(envelope: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "spacing" not in envelope:
        return []
    rows = [
        ("Spacing, mm", _span(envelope["spacing"], 3)),
        ("Shorter side, pixels", _span(envelope["size"]["shorter"], 0)),
        ("Longer side, pixels", _span(envelope["size"]["longer"], 0)),
    ]
    if "volumes" in envelope:
        rows += [
            ("Distance of slices, mm", _span(envelope["slice_distance"], 2)),
            ("Thickness of slices, mm", _span(envelope["thickness"], 2)),
            ("Slices", _span(envelope["slices"], 0)),
            *((f"HU, {name}th percentile", _span(limits, 0)) for name, limits in envelope["hu"].items()),
        ]
    for name, known in envelope["metadata"].items():
        values = [f"{value} ({count})" for value, count in known["values"].items()]
        missing = [f"missing ({100 * known['missing']:.0f} %)"] if known["missing"] else []
        rows.append((name.replace("_", " ").capitalize(), ", ".join([*values, *missing]) or "–"))
    return rows


def _parity_rows(parity: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (title(name, TITLES), f"{found['pictures']} pictures", _small(found["logits"]), _small(found.get("head_px")))
        for name, found in parity["stages"].items()
    ]
    whole = {"Whole cascade": parity["cascade"], "Whole cascade, OpenVINO": parity.get("openvino")}
    return rows + [
        (name, f"{found['cases']} cases", _small(found.get("score")), _small(found["head_px"]))
        for name, found in whole.items()
        if found is not None
    ]


def _bf16_rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    checked = [(title(stage["name"], TITLES), stage["bf16"]) for stage in record["stages"] if stage["bf16"]]
    if record.get("bf16"):
        checked.append(("Whole cascade", record["bf16"]))
    return [
        (name, str(found["n"]), number(found["auc_change"], 5), f"{100 * found['flipped']:.2f} %")
        for name, found in checked
    ]


def _span(limits: Sequence[float] | None, digits: int) -> str:
    return "–" if limits is None else f"{limits[0]:.{digits}f} to {limits[1]:.{digits}f}"


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"
