"""Measures the project's speed and memory: ratios against named baselines, all in one run.

    python tools/bench [TOPIC ...] [--run RUN] [--output DIR] [--short]

Writes bench.md and bench.json into DIR (default outputs/bench) and prints the first; exit code 1 when a target is
missed. RUN is a finished run of +pipeline=hip, whose weights are then measured, else untrained ones of the same shape.
--short: about a minute on two cores; targets count with half their margin, a topic that misses is measured once more.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "tools")  # this folder as the package bench, and none of its files in the way of a module

from bench.machine import machine  # noqa: E402
from bench.measure import Options, Section, Skipped  # noqa: E402
from bench.report import markdown, result  # noqa: E402
from domainseg.files import atomic_path, write_json  # noqa: E402

TOPICS = (
    "inference",
    "exam",
    "training",
    "cascade",
    "memory",
    "reading",
    "phantom",
    "startup",
    "intervals",
    "norms",
    "audit",
    "gpu",
)
SHORT_TOPICS = (
    "inference",
    "exam",
    "training",
    "cascade",
    "memory",
    "reading",
    "intervals",
)  # those with targets for CI
SHORT = {"rounds": 3, "films": 6, "slope_films": 24, "cases": 3000, "resamples": 400}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"{', '.join(TOPICS)} (default: all)")
    parser.add_argument("--run", type=Path, help="a finished run of +pipeline=hip")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "bench")
    parser.add_argument("--short", action="store_true", help="the form for CI")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.topics) - set(TOPICS)):
        parser.error(f"unknown topic {unknown[0]}; known: {', '.join(TOPICS)}")
    about = machine()  # before anything is measured: it holds the load
    sections: dict[str, Section] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        options = Options(scratch=Path(scratch), run=arguments.run and arguments.run.resolve())
        if arguments.short:
            options = replace(options, short=True, commands=("train", "predict"), **SHORT)
        for topic in arguments.topics or (SHORT_TOPICS if arguments.short else TOPICS):
            print(f"bench: {topic} ...", file=sys.stderr, flush=True)
            try:
                sections[topic] = section(topic, options, short=arguments.short)
            except Skipped as reason:
                skipped[topic] = str(reason)
    settings = {
        key: value for key, value in vars(options).items() if key not in ("scratch", "commands", "run", "short")
    }
    found = result(about, {"form": "short" if arguments.short else "full", **settings}, sections, skipped)
    text = markdown(found)
    write_json(arguments.output / "bench.json", found)
    with atomic_path(arguments.output / "bench.md") as temporary:
        temporary.write_text(text)
    print(text)
    return 1 if found["missed"] else 0


def section(topic: str, options: Options, *, short: bool) -> Section:
    """A topic's rows; in the short form with eased targets, and measured once more when one is missed."""
    measure = importlib.import_module(f"bench.{topic}").measure
    found: Section = measure(options)
    if not short:
        return found
    if missed(ease(found)):
        print(f"bench: {topic} missed, once more ...", file=sys.stderr, flush=True)
        found = measure(options)
    return ease(found)


def missed(found: Section) -> bool:
    """Whether a row misses its target."""
    return any(row.met is False for row in found.rows)


def ease(found: Section) -> Section:
    """The rows with half the margin of each target."""
    return replace(found, rows=[replace(r, target=r.target.eased()) if r.target else r for r in found.rows])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.filterwarnings("ignore")  # of the exporter, which speaks of things that do not concern a reader here
    sys.exit(main())
