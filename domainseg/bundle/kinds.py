"""Runs and bundles told apart by their files, so that whoever names one for the other is told so."""

from __future__ import annotations

from pathlib import Path

from domainseg.bundle.schema import METRICS, RECORD, SUMS

RUN = "config.yaml"  # every run has it, no bundle may
BUNDLE = "bundle"  # folder of the bundle in a run
MADE_OF = "predictions.json"  # model and films of a finished prediction, beside its table


def is_bundle(folder: Path) -> bool:
    """Whether a folder is called a bundle by its files; ``verify_bundle`` says whether it is a whole one."""
    return (folder / SUMS).is_file() and (folder / RECORD).is_file()


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, finished or not."""
    return (folder / RUN).is_file() and not (folder / SUMS).exists()


def unfinished(run: Path) -> str:
    """What to do with a run that has not ended; "" for one that has."""
    if (run / METRICS).is_file():
        return ""
    return f"this run is not finished; go on with it: python -m domainseg.train resume=true output={run}"


def bundle_of(run: Path) -> str:
    """Where the bundle of a run is to be had, for who gave the run itself."""
    if is_bundle(run / BUNDLE):
        return f"is a run; its bundle is {run / BUNDLE}"
    if told := unfinished(run):
        return f"is no bundle: {told}"
    return f"is a run without a bundle; make one: python -m domainseg.export run={run} output=DIR"
