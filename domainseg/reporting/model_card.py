"""MODEL_CARD.md of a bundle: what it is for, what it learned from, how well it did, and what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from domainseg.reporting import sections
from domainseg.reporting.content import Content
from domainseg.reporting.words import STAGES, TITLES, number, title

TEMPLATE = "model_card.md"

SIMULATED = (
    "Trained and tested on simulated films: the figures say that the method works on those, not that it works in a "
    "hospital."
)
ALWAYS = (
    "The figures hold for films such as those of the test split: sensitivity and specificity move with the cases.",
    "A hip that was excluded or not found got no answer: it is not a healthy one.",
)


def model_card(record: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The card, in Markdown, from bundle.json (``record``) and metrics.json (``metrics``)."""
    # Names of sites, devices and data come from tables and films: they are shown and never formatted.
    record = {**record, "data": _inert(record["data"]), "envelope": _inert(record["envelope"])}
    content = Content(
        name=str(record["pipeline"]),
        metrics=dict(metrics),
        thresholds=[{"stage": stage["name"], **stage["chosen"]} for stage in record["stages"]],
    )
    target = str(record["target"])
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
        label=record["labels"][target],
        split=content.split,
        stages=[_stage_row(stage, record["labels"]) for stage in record["stages"]],
        **_split_rows(record["data"]["splits"], record["labels"]),
        brief=sections.brief(content),
        figures=[
            (block["title"], row["name"], row["intention"], row["conditional"], row["n"], row["patients"])
            for block in sections.key_figures(content)
            for row in block["rows"]
        ],
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
            (title(row["stage"], STAGES), row["reason"].replace("_", " "), row["films"], row["rows"])
            for row in (exclusions or {"reasons": []})["reasons"]
        ],
        envelope=envelope,
        inputs=_input_rows(envelope) if envelope.get("films") else [],
        few=envelope.get("few"),
        limits=[*([SIMULATED] if record["data"]["simulated"] else []), *ALWAYS, *sections.warnings(content)],
        parity=_parity_rows(record["parity"]),
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


def _stage_row(stage: Mapping[str, Any], labels: Mapping[str, Any]) -> tuple[str, ...]:
    size = stage["preprocessing"][0]["size"]
    return title(stage["name"], TITLES), labels[stage["target"]]["question"], f"{size} x {size}", str(stage["batch"])


def _split_rows(splits: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    sites = sorted({site for split in splits.values() for site in split.get("sites", {})})
    return {
        "split_heads": ["Split", "Films", "Patients", *(f"Site {site}" for site in sites), "SHA-256"],
        "splits": [
            (
                *(name, split["films"], split.get("patients", "–")),
                *(split.get("sites", {}).get(site, 0) for site in sites),
                split["sha256"][:12],
            )
            for name, split in splits.items()
        ],
        "labels": [
            (title(target, TITLES), name, *(split["labels"][target][key] for key in ("positive", "negative", "of")))
            for target in known
            for name, split in splits.items()
            if target in split.get("labels", {})
        ],
    }


def _input_rows(envelope: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("Spacing, mm", _span(envelope["spacing"], 3)),
        ("Shorter side, pixels", _span(envelope["size"]["shorter"], 0)),
        ("Longer side, pixels", _span(envelope["size"]["longer"], 0)),
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
