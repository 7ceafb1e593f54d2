"""Several data sources as one: data=pooled. What one source knows and another does not is unknown there."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from domainseg.data.manifest import Manifest, build_manifest
from domainseg.data.tables import ManifestError, is_binary_label


def load(
    sources: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Mapping[str, int]] | None = None,
    root: Path | str = ".",
) -> Manifest:
    """The films of all sources under their own names, or as <source>/<image> where two have the same.

    sources: name -> settings with the ``_target_`` that loads it. known: labels of all films of a source that the
    source itself does not tell, {nih: {label_covid: 0}}. root: what the sources' own folders may start from. images:
    all columns that a source has; site is the source's name where it says none; paths are absolute. Raises
    ManifestError, also when a source divides its films itself, which would leave those of the others undivided.
    """
    if len(sources) < 2:
        raise ManifestError("data.sources: two or more data sources are needed")
    if strangers := sorted(set(known or {}) - set(sources)):
        raise ManifestError(f"data.known: {strangers[0]} is none of the sources, {', '.join(sources)}")
    found = {name: _load(name, settings) for name, settings in sources.items()}
    return pool(found, known or {}, Path(root))


def pool(found: Mapping[str, Manifest], known: Mapping[str, Mapping[str, int]], root: Path) -> Manifest:
    """One manifest of several, as ``load`` says."""
    names = pd.concat([manifest.images["image"] for manifest in found.values()])
    repeated = set(names[names.duplicated()])
    parts = [_part(name, manifest, known.get(name, {}), repeated) for name, manifest in found.items()]
    images, targets = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    return build_manifest(images, targets, root, "pooled")


def _load(name: str, settings: Mapping[str, Any]) -> Manifest:
    from hydra.utils import get_method  # late: the other sources do without

    chosen = dict(settings)
    try:
        load_one = get_method(chosen.pop("_target_"))
        inspect.signature(load_one).bind(**chosen)
    except (KeyError, ImportError, TypeError) as error:
        raise ManifestError(f"data.sources.{name}: {error}") from error
    manifest: Manifest = load_one(**chosen)
    return manifest


def _part(
    name: str, manifest: Manifest, known: Mapping[str, int], repeated: set[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    images, targets = manifest.images, manifest.targets
    if (images["split"] != "").any():
        raise ManifestError(
            f"data.sources.{name}: divides its films itself, which would leave the others undivided; turn that off "
            "(data.sources.nih.official_split=false) or remove its split column"
        )
    for label, value in known.items():
        if not is_binary_label(label) or value not in (0, 1):
            raise ManifestError(f"data.known.{name}: label_<target> with 0 or 1 is needed, not {label}={value}")
        if label in targets and targets[label].notna().any():
            raise ManifestError(f"data.known.{name}.{label}: the source knows it")
        targets = targets.assign(**{label: value})
    paths = [str(manifest.path(image).absolute()) for image in images["image"]]
    images = images.assign(path=paths, site=images["site"].where(images["site"] != "", name))
    renamed = {image: f"{name}/{image}" for image in repeated}
    return (
        images.assign(image=images["image"].replace(renamed)),
        targets.assign(image=targets["image"].replace(renamed)),
    )
