"""Where a manifest may be written: into a folder that holds nothing, or nothing but what this command wrote."""

from __future__ import annotations

from pathlib import Path

from domainseg.data.privacy import PRIVATE
from domainseg.data.tables import ManifestError

IMAGES, TARGETS, SOURCES = "images.parquet", "targets.parquet", "sources.parquet"
LEFT_OUT, SUMMARY, MASKS, SETTINGS = "left_out.csv", "summary.json", "masks", "manifest.yaml"
_OWN = {IMAGES, TARGETS, SOURCES, LEFT_OUT, SUMMARY, MASKS, SETTINGS, PRIVATE}
_KINDS = {"bundle.json": "a bundle", "config.yaml": "a run", "predictions.parquet": "predictions"}


def check_place(output: Path) -> None:
    """Raise ManifestError for a folder that holds something else. Its names are not told: they may be patients'."""
    if not output.exists():
        return
    if not output.is_dir():
        raise ManifestError(f"output={output}: is no folder")
    others = {entry.name for entry in output.iterdir() if not _is_own(entry)}
    if others:
        kind = next((kind for name, kind in _KINDS.items() if name in others), f"something else ({len(others)} names)")
        raise ManifestError(f"output={output}: holds {kind}; name a new folder, or one that a manifest was made in")


def _is_own(entry: Path) -> bool:
    """Also the log, and what a killed process left half written."""
    return entry.name in _OWN or entry.suffix == ".log" or (entry.name.startswith(".") and ".partial-" in entry.name)
