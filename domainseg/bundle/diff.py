"""In which respects two bundles differ, as lines for people."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from domainseg.bundle.graph import weights
from domainseg.bundle.override import told
from domainseg.bundle.verify import Verified

_APART = ("stages", "created")


def differences(one: Verified, other: Verified) -> list[tuple[str, str, str]]:
    """(what, in the first, in the second) for everything that differs; [] when nothing but the date of making does."""
    found: list[tuple[str, str, str]] = []
    stages = [{stage["name"]: stage for stage in bundle.record["stages"]} for bundle in (one, other)]
    first_order, second_order = (", ".join(names) for names in stages)
    if first_order != second_order:
        found.append(("stages", first_order, second_order))
    for name in stages[0].keys() & stages[1].keys():
        first, second = stages[0][name], stages[1][name]
        if one.models[name] != other.models[name]:
            found.append((f"{name}: weights", *_weights(one.models[name], other.models[name])))
        found += _leaves(first, second, f"{name}: ")
    found += _leaves(
        {key: value for key, value in one.record.items() if key not in _APART},
        {key: value for key, value in other.record.items() if key not in _APART},
        "",
    )
    for name in sorted(one.documents.keys() & other.documents.keys()):
        if one.documents[name] != other.documents[name]:
            found.append((name, _digest(one.documents[name]), _digest(other.documents[name])))
    return sorted(found)


def _digest(document: bytes) -> str:
    return f"SHA-256 {hashlib.sha256(document).hexdigest()[:12]}"


def _weights(one: bytes, other: bytes) -> tuple[str, str]:
    """How far apart the weights are, where the networks are alike; otherwise that they are not."""
    first, second = weights(one), weights(other)
    if [(name, values.shape) for name, values in first.items()] != [(n, v.shape) for n, v in second.items()]:
        return f"{_count(first)} parameters", f"{_count(second)} parameters, another network"
    largest = max((float(np.abs(first[name] - second[name]).max()) for name in first if first[name].size), default=0.0)
    changed = sum(not np.array_equal(first[name], second[name]) for name in first)
    if not changed:
        return "", "same numbers in another file"
    return f"{len(first)} tensors", f"{changed} differ, by up to {largest:.3g}"


def _count(tensors: Mapping[str, Any]) -> int:
    return sum(values.size for values in tensors.values())


def _leaves(one: Any, other: Any, where: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from _leaves(one.get(key), other.get(key), f"{where}{key}.")
    elif where.endswith("overrides.") and one != other:
        first, second = ("; ".join(told(entry) for entry in made or []) or "none" for made in (one, other))
        yield where.rstrip("."), first, second
    elif one != other:
        yield where.rstrip("."), _short(one), _short(other)


def _short(value: Any) -> str:
    text = "absent" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
