"""Set a bundle's threshold anew for a place: a new bundle, in which the old value and who changed it stand."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domainseg.bundle.schema import METRICS, MODEL_CARD, RECORD, BundleError
from domainseg.bundle.verify import Verified
from domainseg.bundle.write import write_bundle

SAID = (
    "A threshold was set anew on local cases, and this is the one that is used. Sensitivities, specificities and "
    "predictive values further down were measured at the threshold before the first change."
)
BELOW = "*The card as it was when the bundle was tested:*"


def threshold_of(record: Mapping[str, Any], target: str) -> float:
    """From which score on a bundle calls ``target``. Raises BundleError when no stage decides it."""
    return float(_place(record, target)[1]["threshold"])


def override_threshold(bundle: Verified, target: str, entry: Mapping[str, Any], output: Path) -> str:
    """Write the bundle with another threshold of ``target`` to ``output``; returns the new bundle's SHA-256.

    entry: threshold, rule, by, n_positive, n_negative, kept, specificity, provisional. It is appended to the stage's
    ``overrides`` with target, the time, the value before (was) and the SHA-256 of the bundle that it was made from. The
    figures in metrics.json and on the card stay those of the test, at the first threshold; the card says so first.
    bf16 counts as unchecked. Raises BundleError, also where ``output`` holds a bundle already: it may be this one.
    """
    record = deepcopy(bundle.record)
    record.pop("bf16", None)  # it was checked at the threshold before
    stage, numbers = _place(record, target)
    if (output / RECORD).exists():
        raise BundleError(f"{output}: holds a bundle, which is not replaced; name another output")
    made = {
        "target": target,
        "was": float(numbers["threshold"]),
        **entry,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": bundle.sha256,
    }
    numbers["threshold"] = float(entry["threshold"])
    if numbers is stage["frozen"]:
        numbers |= {"rule": f"{entry['rule']}, local", "provisional": bool(entry["provisional"])}
    for each in record["stages"]:
        each["bf16"] = None
    stage["overrides"] = [*stage.get("overrides", []), made]
    card, metrics = (bundle.documents[name].decode() for name in (MODEL_CARD, METRICS))
    documents = {MODEL_CARD: _noted(card, record), METRICS: metrics}
    return write_bundle(output, record, bundle.models, documents)


def overrides_of(record: Mapping[str, Any], target: str | None = None) -> list[Mapping[str, Any]]:
    """What was set anew in a bundle, of one target or of all, the oldest first."""
    made = [entry for stage in record["stages"] for entry in stage.get("overrides", [])]
    return [entry for entry in made if target in (None, entry["target"])]


def told(entry: Mapping[str, Any]) -> str:
    """An override in one line."""
    return (
        f"{entry['target']}: {entry['was']:.4g} -> {entry['threshold']:.4g} ({entry['rule']} on {entry['n_positive']} "
        f"positive and {entry['n_negative']} negative local cases, by {entry['by']}, {entry['made']})"
    )


def _place(record: Mapping[str, Any], target: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stage that decides a target, and the mapping in which its threshold stands."""
    for stage in record["stages"]:
        if stage.get("target", stage["name"]) == target:
            return stage, stage["frozen"]
    for stage in record["stages"]:
        if "threshold" in (numbers := stage["decision"].get("numbers", {}).get(target, {})):
            return stage, numbers
    decided = ", ".join(str(stage.get("target", stage["name"])) for stage in record["stages"])
    raise BundleError(f"target={target}: no stage of the bundle has a threshold of its own for it; there are {decided}")


def _noted(card: str, record: Mapping[str, Any]) -> str:
    """The card with what was set anew straight under its title."""
    title, _, rest = card.partition("\n")
    body = rest.partition(BELOW)[2] if BELOW in rest else rest
    lines = [f"- {_plain(told(entry))}" for entry in overrides_of(record)]
    return "\n".join([title, "", "## Local threshold", "", SAID, "", *lines, "", BELOW, "", body.lstrip("\n")])


def _plain(text: str) -> str:
    """On one line, without a meaning in Markdown: who changed a threshold is typed freely."""
    return "".join(f"\\{letter}" if letter in r"\`*[]<>|" else letter for letter in " ".join(text.split()))
