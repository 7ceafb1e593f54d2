"""Pictures of findings for the report, and maps.html: a page to go through films, their maps and what was predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.findings import Findings
from domainseg.data.manifest import Manifest
from domainseg.files import write_bytes, write_json
from domainseg.imaging import Film, ImageReadError, read_film
from domainseg.reporting.overlays import write_png
from domainseg.reporting.overlays_findings import LEGEND, encoded, panels
from domainseg.reporting.page import Figure, Page, Section, Table, write_page
from domainseg.reporting.words import TITLES, number, title
from domainseg.training.described import spaced
from domainseg.training.stages import load_cascade

FINDINGS_SHOWN = 10  # in the report
FILMS_SHOWN = 60  # on the page
SIDE = 320  # pixels of a film's longer side
FIRST = (
    "First those that were found, missed and falsely called, by finding; then films evenly spaced over the test split, "
    "so that most show what is usual."
)
MAPS = (
    "A map is the network's answer to each cell of its last feature map by itself, as a probability divided by the "
    f"share of the training films with the finding, on a logarithmic scale: {LEGEND}."
)
NOT_WHERE = (
    "A map shows what raised the score, in cells of a seventh of the film at 224 px, not where a finding is: each cell "
    "sees most of the film."
)
KINDS = {"found": "found", "missed": "missed", "false_alarm": "false alarm"}


@dataclass
class Shown:
    """Films of a run with what its networks say of them; each is run once."""

    run: Path
    manifest: Manifest
    _cascades: dict[Path, Cascade] = field(default_factory=dict)

    def look(self, row: Mapping[str, Any]) -> tuple[Film, Case, Findings] | None:
        """The film of a row of the table, its case and the decision; None where it cannot be read."""
        where = self.run / "folds" / str(row["fold"]) if row.get("fold") else self.run
        if where not in self._cascades:
            self._cascades[where] = Cascade(load_cascade(where, "cpu"))
        try:
            film = read_film(self.manifest.path(row["image"]))
        except ImageReadError:
            return None
        (case,) = self._cascades[where].run(Case.of(row["image"], film))
        decision = self._cascades[where].stages[-1].decision
        assert isinstance(case, Case)
        assert isinstance(decision, Findings)
        return film, case, decision


def write_findings_pictures(
    run: Path, table: pd.DataFrame, manifest: Manifest, sheet: NDArray[np.uint8] | None
) -> None:
    """Write run/pictures/*.jpg, captions.json, the contact sheet and maps.html: test films but for the sheet."""
    test = table[(table["split"] == "test") & (table["excluded_by"] == "")]
    shown, captions = Shown(run, manifest), {}
    chosen = list(choose(test))
    for finding, kind, row in [entry for entry in chosen if entry[0] in _first(chosen)]:
        if (seen := shown.look(row)) is not None:
            film, case, decision = seen
            name = f"{finding}_{kind}.jpg"
            write_bytes(run / "pictures" / name, encoded(panels(film, case, [finding], SIDE)))
            told = f"{KINDS[kind]}: film {row['image']}; score {row[f'score_{finding}']:.2f}, threshold "
            told += f"{row[f'threshold_{finding}']:.2f}, base rate {_base_rate(decision, finding):.3f}"
            captions[name] = {"caption": told, "group": title(finding, TITLES)}
    if sheet is not None:
        write_png(sheet, run / "pictures" / "contact_sheet.png")
    write_json(run / "pictures" / "captions.json", captions)
    write_page(page(test, [row for _, _, row in chosen], shown), run / "maps.html")


def _first(chosen: Sequence[tuple[str, str, Mapping[str, Any]]]) -> set[str]:
    return set(list(dict.fromkeys(finding for finding, _, _ in chosen))[:FINDINGS_SHOWN])


def choose(test: pd.DataFrame) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(finding, kind, row) of test films worth a look, the most frequent finding first.

    The highest score of a film with the finding, the lowest one that missed it, the highest one of a film without it
    that was called.
    """
    scores = [str(name) for name in test if str(name).startswith("score_")]
    findings = [name[6:] for name in scores if f"label_{name[6:]}" in test]
    for name in sorted(findings, key=lambda name: -int((test[f"label_{name}"] == 1).sum())):
        ranked = test.sort_values(f"score_{name}", ascending=False)
        call = ranked[f"score_{name}"] >= ranked[f"threshold_{name}"]
        there, absent = ranked[f"label_{name}"] == 1, ranked[f"label_{name}"] == 0
        kinds = {"found": ranked[call & there], "missed": ranked[~call & there][::-1]}
        for kind, rows in {**kinds, "false_alarm": ranked[call & absent]}.items():
            for row in rows.head(1).to_dict("records"):
                yield name, kind, {str(column): value for column, value in row.items()}


def page(test: pd.DataFrame, first: Sequence[Mapping[str, Any]], shown: Shown) -> Page:
    """The page: the films worth a look, then films evenly spaced over the test split, FILMS_SHOWN in all at most."""
    by_image = {str(row["image"]): {str(k): v for k, v in row.items()} for row in test.to_dict("records")}
    wanted = [str(row["image"]) for row in first] + spaced(list(by_image), FILMS_SHOWN)
    images = list(dict.fromkeys(wanted))[:FILMS_SHOWN]
    sections: list[Section] = []
    for row in (by_image[image] for image in images):
        if (seen := shown.look(row)) is not None:
            sections.append(_section(len(sections) + 1, row, *seen))
    return Page(
        title="Films, maps and predictions",
        subtitle=f"{len(sections)} of {len(by_image)} scored test films.",
        brief=[FIRST, MAPS],
        warnings=[NOT_WHERE],
        sections=sections,
    )


def _section(place: int, row: Mapping[str, Any], film: Film, case: Case, decision: Findings) -> Section:
    ratios = {name: row[f"score_{name}"] / _base_rate(decision, name) for name in decision.scored}
    ranked = sorted(ratios, key=lambda name: -ratios[name])
    present = [name for name in ranked if row.get(f"label_{name}") == 1]
    names = list(dict.fromkeys([ranked[0], *present]))[:3]
    rows = []
    for name in ranked:
        score, base_rate, label = row[f"score_{name}"], _base_rate(decision, name), row.get(f"label_{name}", np.nan)
        called = "called" if score >= row[f"threshold_{name}"] else ""
        said = {1.0: "present", 0.0: "absent"}.get(label, "unknown")
        rows.append((title(name, TITLES), number(score), number(base_rate), number(ratios[name], 1), called, said))
    heads = ("Finding", "P", "Base rate", "P / base rate", "At the threshold", "Label")
    labels = ", ".join(title(name, TITLES).lower() for name in present) or "none known to be present"
    about = "".join(f" {name} {row[name.lower()]}." for name in ("Site", "View") if row.get(name.lower()))
    return Section(
        title=f"{place}. {row['image']}",
        text=[f"Labels: {labels}.{about}"],
        figures=[Figure(encoded(panels(film, case, names, SIDE)), f"The film; maps of {', '.join(names)}")],
        tables=[Table(heads, rows, numeric=(1, 2, 3))],
    )


def _base_rate(decision: Findings, finding: str) -> float:
    return float(decision.numbers[finding]["base_rate"])
