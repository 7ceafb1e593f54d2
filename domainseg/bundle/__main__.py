"""Look at bundles: what is in one, whether it is whole, how two differ."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from domainseg.bundle.diff import differences
from domainseg.bundle.load import bf16_passed, load_bundle
from domainseg.bundle.override import overrides_of, told
from domainseg.bundle.schema import METRICS, BundleError, reads_of
from domainseg.bundle.verify import Verified, verify_bundle
from domainseg.cascade.operations import picture_shape

EPILOG = """exit code: 0 all is well (diff: the bundles are alike), 1 a difference was found,
2 a bundle is damaged or cannot be used"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m domainseg.bundle",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="inspect|verify|diff")
    for name, text in (
        ("inspect", "stages, thresholds, networks, training data and envelope of a bundle"),
        ("verify", "check every file of a bundle, and that its networks load and answer as declared"),
        ("diff", "what differs between two bundles, with numbers"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("bundle", type=Path, metavar="DIR")
        if name == "diff":
            command.add_argument("other", type=Path, metavar="DIR")
    typed = parser.parse_args(argv)
    console = Console()
    try:
        if typed.command == "inspect":
            inspect(verify_bundle(typed.bundle), console)
        elif typed.command == "verify":
            verify(typed.bundle, console)
        else:
            return diff(verify_bundle(typed.bundle), verify_bundle(typed.other), console)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def inspect(bundle: Verified, console: Console) -> None:
    """Print what a bundle says of itself."""
    record = bundle.record
    versions = {f"versions when {when}": found for when, found in record["versions"].items()}
    facts = _table("Bundle", "", "")
    for key, value in (
        ("SHA-256", bundle.sha256),
        ("pipeline, target", f"{record['pipeline']}, {record['target']}"),
        *((("made", record["created"]),) if "created" in record else ()),
        (f"schema, {reads_of(record)} reader", f"{record['schema']}, {record['reader']}"),
        *((when, _listed(found)) for when, found in versions.items()),
    ):
        facts.add_row(key, str(value))
    console.print(facts)
    stages = _table("Stages", "", *(stage["name"] for stage in record["stages"]))
    for name, describe in _STAGE_FACTS.items():
        stages.add_row(name, *(describe(stage, bundle) for stage in record["stages"]))
    console.print(stages)
    if made := overrides_of(record):
        changed = _table("Thresholds set anew since export, on local cases", "")
        for entry in made:
            changed.add_row(escape(told(entry)))
        console.print(changed)
    for key in ("data", "labels", "envelope", "parity"):
        if record[key]:
            part = _table(key.capitalize(), "", "")
            for name, value in _flat(record[key]):
                part.add_row(name, value)
            console.print(part)
    metrics = json.loads(bundle.documents[METRICS])
    found = metrics.get("test", {}).get(record["target"], {})
    rows = [(name, value) for name, value in found.items() if isinstance(value, dict) and "value" in value]
    if rows:
        figures = _table(f"{record['target']} on test", "", "value", "95 %", "n")
        for name, value in rows:
            limits = f"{_number(value['low'])}–{_number(value['high'])}"
            figures.add_row(name, _number(value["value"]), limits, str(value["n"]))
        console.print(figures)


# Row of the table of stages -> its cell, from a stage's entry and the bundle.
_STAGE_FACTS: Mapping[str, Callable[[Mapping[str, Any], Verified], str]] = {
    "decides as": lambda stage, _: stage["decision"]["kind"],
    "picture": lambda stage, _: " x ".join(str(side) for side in picture_shape(stage["preprocessing"])),
    "preprocessing": lambda stage, _: ", ".join(each["op"] for each in stage["preprocessing"]),
    "parameters": lambda stage, bundle: f"{bundle.graphs[stage['name']].parameters:,}",
    "file": lambda stage, bundle: f"{len(bundle.models[stage['name']]) / 1e6:.1f} MB",
    "batch": lambda stage, _: str(stage["batch"]),
    "threshold": lambda stage, _: f"{stage['frozen']['threshold']:.4f}",
    "rule": lambda stage, _: stage["frozen"]["rule"] + (" (provisional)" if stage["frozen"]["provisional"] else ""),
    "bf16": lambda stage, _: "checked" if bf16_passed(stage) else "not checked",
}


def verify(path: Path, console: Console) -> None:
    """Check all files, load the networks and run each once. Raises BundleError."""
    bundle = load_bundle(path)
    for stage in bundle.stages:
        try:
            stage.network(np.zeros((1, *picture_shape(stage.preprocessing)), np.float32))
        except BundleError:
            raise
        except FloatingPointError as error:
            raise BundleError(f"{path}: {error}") from None
        except Exception as error:  # each runtime has exceptions of its own, without a common base
            reason = str(error).strip().partition("\n")[0]
            raise BundleError(f"{path}: stage {stage.name}: cannot be run ({reason})") from None
    whole = f"{path}: whole; {len(bundle.stages)} networks load and answer as declared\nSHA-256 {bundle.sha256}"
    console.print(whole, markup=False)


def diff(one: Verified, other: Verified, console: Console) -> int:
    """Print what differs; 1 when something does."""
    found = differences(one, other)
    if not found:
        console.print("no difference" if one.sha256 == other.sha256 else "no difference but the date of making")
        return 0
    table = _table("Differences", "", "first", "second")
    for row in found:
        table.add_row(*map(escape, row))
    console.print(table)
    return 1


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, show_header=any(columns), pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _flat(value: Any, where: str = "") -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        return [(where, _number(value) if isinstance(value, float) else str(value))]
    return [row for key, inner in value.items() for row in _flat(inner, f"{where}.{key}" if where else str(key))]


def _listed(found: Any) -> str:
    return ", ".join(f"{name} {each}" for name, each in found.items()) if isinstance(found, dict) else str(found)


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
