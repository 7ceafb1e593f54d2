"""The result as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.measure import Section

VERDICT = {True: "yes", False: "NO", None: ""}
BUSY = 0.3
"""Load a core above which the machine counts as busy."""


def result(
    machine: Mapping[str, Any], settings: Mapping[str, Any], sections: Mapping[str, Section], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that was measured, as JSON has it."""
    return {
        "machine": dict(machine),
        "settings": dict(settings),
        "topics": {
            name: {"about": section.about, "rows": [row.plain() for row in section.rows]}
            for name, section in sections.items()
        },
        "skipped": dict(skipped),
        "missed": [f"{name}: {r.what}" for name, section in sections.items() for r in section.rows if r.met is False],
    }


def markdown(found: Mapping[str, Any]) -> str:
    """What ``result`` returns, for people."""
    lines = ["# Benchmark", "", *about(found["machine"], found["settings"])]
    for topic, section in found["topics"].items():
        head = ["what", "against", "ratio", "quartiles", "rounds", "target", "met", "note"]
        lines += ["", f"## {topic}", "", section["about"], "", table_line(head), table_line(["---"] * len(head))]
        for row in section["rows"]:
            spread = f"{row['low']:.3g} to {row['high']:.3g}"
            verdict = [row["n"], row["target"] or "", VERDICT[row["met"]], row["note"]]
            lines.append(table_line([row["what"], row["baseline"], f"{row['ratio']:.3g}", spread, *verdict]))
    for topic, reason in found["skipped"].items():
        lines += ["", f"## {topic}", "", f"Skipped: {reason}"]
    lines += ["", f"Missed: {', '.join(found['missed'])}." if found["missed"] else "All targets met."]
    return "\n".join(lines) + "\n"


def table_line(cells: Sequence[object]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def about(machine: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Lines on hardware, versions, load and settings."""
    load, cores = machine["load"][0], machine["cores"]
    processor = f"{machine['processor']} ({', '.join(machine['flags'])}), {cores} cores, {machine['memory_gb']} GB"
    lines = [
        f"- {processor}, GPU: {machine['gpu'] or 'none'}; {machine['system']}, Python {machine['python']}",
        "- " + ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version),
        "- " + ", ".join(f"{name}: {value}" for name, value in settings.items()),
        "- A ratio is the median over rounds in which all ways take turns; times are medians and only illustrate.",
    ]
    if load > BUSY * cores:
        lines.append(f"- BUSY MACHINE: load {load} on {cores} cores at the start. Do not quote these figures.")
    return lines
