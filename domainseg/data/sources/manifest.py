"""The user's own films: data=manifest data.path=films.csv, with or without data.targets=targets.csv."""

from __future__ import annotations

from pathlib import Path

from domainseg.data.manifest import Manifest, load_manifest


def load(
    path: Path | str, targets: Path | str | None = None, root: Path | str | None = None, check_files: bool = True
) -> Manifest:
    """Read a manifest; docs/manifest.md lists its columns. Raises ManifestError.

    path: images table, or one table for images and targets (.csv or .parquet). targets: the second table, if any.
    root: the folder that relative paths start from, by default that of ``path``.
    """
    return load_manifest(path, targets, root=root, check_files=check_files)
