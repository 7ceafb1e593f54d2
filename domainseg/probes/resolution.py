"""Which resolution does a bundle need? The same films reduced to fewer pixels and enlarged again.

  python -m domainseg.audit +probe=resolution bundle=DIR data=manifest data.path=films.csv output=DIR

A detector that finds what only fine detail shows gets worse when the detail is gone. One that holds its AUC at 32
pixels does not look at the fracture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from domainseg.evaluation.intervals import LEVEL
from domainseg.imaging import Film
from domainseg.probes.changed_films import bundle_and_films, effects, predict_changed, with_pixels
from domainseg.probes.common import ProbeError, p_text, write_results
from domainseg.probes.effects import holm
from domainseg.reporting.page import Figure, Page, Section, Table
from domainseg.reporting.words import interval

TEXT = (
    "Reduced by area averaging, enlarged linearly to the size before; a film that has no more pixels than that is left "
    "as it is. On intention a case that a stage excludes then is lost. The difference of cases scored both ways "
    "tells what is left of the decision itself; p is corrected (Holm) over the sizes."
)


def run(cfg: dict[str, Any], output: Path, *, sizes: Sequence[int], films: str = "test") -> dict[str, Any]:
    """Write resolution.json, resolution.html and the table of predictions; returns the record. Raises ProbeError."""
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 8 for size in sizes):
        raise ProbeError(f"probe.sizes={list(sizes)}: whole numbers of pixels, 8 or more")
    bundle, manifest, origin = bundle_and_films(cfg, films)
    wanted = {str(size): partial(_reduced, size=size) for size in sorted(set(sizes))}
    table, touched = predict_changed(bundle, manifest, wanted, output)
    record = effects(table, str(bundle.record["target"]), list(wanted), touched)
    record |= {"films": len(manifest), "bundle_sha256": bundle.sha256, "said": [origin]}
    record["verdict"] = _verdict(record)
    write_results(output, "resolution", record, page_of(record), short_table(record))
    return record


def _reduced(film: Film, rows: Sequence[Mapping[str, Any]], size: int) -> Film | None:
    return reduced(film, size)


def reduced(film: Film, size: int) -> Film | None:
    """The film with no more detail than ``size`` pixels along its longer side show; None where it has no more."""
    height, width = film.shape
    if max(height, width) <= size:
        return None
    scale = size / max(height, width)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    coarse = cv2.resize(film.pixels, small, interpolation=cv2.INTER_AREA)
    return with_pixels(film, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))


def _verdict(record: Mapping[str, Any]) -> str:
    whole = f"AUC on films as they are: {interval(record['auc'])}, {record['n']} cases"
    if record["few"]:
        return f"{whole}: too few cases for a verdict."
    asked = [effect for effect in record["effects"] if effect["films"]]
    if not asked:
        return f"{whole}. No film has more pixels than the sizes asked for: nothing was reduced."
    adjusted = holm([effect["p_difference"] for effect in asked])
    worse = [e for e, p in zip(asked, adjusted, strict=True) if e["difference"]["value"] < 0 and p < 1 - LEVEL]
    if not worse:
        most = max(0.0, *(-effect["difference"]["low"] for effect in asked))
        return f"{whole}. No loss is shown, down to {asked[0]['name']} px; one of up to {most:.3f} is not excluded."
    told = [f"by {interval(e['difference'])} at {e['name']} px ({e['lost']} cases lost)" for e in worse]
    return f"{whole}. On intention it is lower {'; '.join(told)}."


def short_table(record: Mapping[str, Any]) -> Table:
    """One row a size."""
    rows = [("as they are", str(record["films"]), interval(record["auc"]), "–", "–", "–", "–")]
    for effect in reversed(record["effects"]):
        size, films = effect["name"], str(effect["films"])
        if not effect["films"]:
            rows.append((size, films, "–", "–", "–", "–", "–"))
            continue
        p = "too few" if effect["few"] else p_text(effect["p_holm"])
        both = interval(effect["scored_both"]["difference"])
        gap, lost = interval(effect["difference"]), str(effect["lost"])
        rows.append((size, films, interval(effect["auc"]), gap, lost, both, p))
    heads = (
        "Longer side, px",
        "Films reduced",
        "AUC, on intention",
        "Difference",
        "Lost",
        "Scored both ways",
        "p (Holm)",
    )
    return Table(heads, rows, f"{record['target']} by resolution, 95 % intervals", numeric=range(1, 7))


def page_of(record: Mapping[str, Any]) -> Page:
    """The report."""
    return Page(
        title="Resolution",
        subtitle=f"Target: {record['target']}, {record['n']} cases, {record['positive_n']} positive.",
        brief=[record["verdict"], *record["said"]],
        sections=[
            Section(
                "AUC by resolution",
                text=[TEXT],
                tables=[short_table(record)],
                figures=[Figure(_drawing(record), "AUC over the pixels of the longer side; band: films as they are")],
            )
        ],
    )


def _drawing(record: Mapping[str, Any]) -> str:
    from domainseg.reporting.figures import MUTED, NEGATIVE, POSITIVE, as_svg, drawing

    sizes = [int(effect["name"]) for effect in record["effects"]]
    with drawing(1, height=3.2, width=5) as (figure, (axis,)):
        axis.axhspan(record["auc"]["low"], record["auc"]["high"], color=NEGATIVE, alpha=0.15, lw=0)
        axis.axhline(record["auc"]["value"], color=NEGATIVE, lw=1, ls="--")
        values = np.array([[effect["auc"][key] for key in ("value", "low", "high")] for effect in record["effects"]])
        axis.vlines(sizes, values[:, 1], values[:, 2], color=POSITIVE)
        axis.plot(sizes, values[:, 0], color=POSITIVE, marker="o", ms=4)
        axis.axhline(0.5, color=MUTED, lw=0.8, ls=":")
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.set(xlabel="pixels of the longer side", ylabel="AUC", ylim=(0, 1))
        return as_svg(figure)
