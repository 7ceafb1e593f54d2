"""One self-contained report.html from a run folder: no other file, no script, nothing fetched."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import jinja2

from domainseg.evaluation.published import CHEST_DIFFERS, DIFFERS
from domainseg.evaluation.tables import Rows, probable, rows_of, texts
from domainseg.files import atomic_path
from domainseg.imaging.hemorrhage import TYPES
from domainseg.reporting import figures, sections, sections_detail, sections_findings, sections_volume
from domainseg.reporting.content import Content, Picture, gather, record
from domainseg.reporting.words import CLASSES, COLUMNS, EXAMS, METRICS, TITLES, interval, known, stage_title, title

FIGURES = ("flow", "roc", "scores", "calibration", "heads", "groups", "froc", "volumes")
_WIDEST = 1400  # pixels of a picture in the report; wider ones are reduced
_LARGE = 300_000  # bytes; larger pictures are stored as JPEG


def write_report(run: Path) -> Path:
    """Write run/report.html from the pieces of the run folder (see ``gather``) and return its path.

    A missing piece is left out, and the report says so. The same pieces give the same bytes.
    """
    return write(gather(run), run / "report.html")


def write(content: Content, path: Path) -> Path:
    """Render a report and write it atomically."""
    html = render(content)
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def render(content: Content) -> str:
    """The report as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("domainseg.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = _rows(content)
    main = content.main
    steps = _flow(content, rows)
    return environment.get_template("report.html").render(
        content=content,
        words=content.nouns,
        brief=sections.brief(content),
        warnings=[*content.notes, *sections.warnings(content)],
        key_figures=sections.key_figures(content),
        thresholds=sections.thresholds(content),
        calibration=sections.calibration_rows(content),
        comparisons=sections.comparisons(content),
        calibration_heads=sections.CALIBRATION_HEADS,
        waterfall=steps,
        sides=("positive", "negative", "unknown")
        if steps and steps[0]["left"]["unknown"]
        else ("positive", "negative"),
        classes=CLASSES.get(main or "", ("negative", "positive")),
        main_title=title(main or "", TITLES),
        coverage=_coverage(content),
        groups=_groups(content),
        details=sections_detail.details(content),
        worst=sections_detail.worst_rows(content),
        splits=sections.splits(content),
        facts=sections.facts(content),
        confusion=content.results.get("location", {}).get("confusion"),
        location_accuracy=interval(record(content.results, "location", "accuracy")),
        pointing=interval(record(content.results, "fracture", "pointing_hit")),
        volumes=content.nouns == EXAMS,
        types=sections_volume.type_rows(content),
        balanced=sections_volume.balanced_rows(content),
        sizes=sections_volume.size_rows(content),
        mimics=sections_volume.mimic_rows(content),
        findings=sections_findings.finding_rows(content),
        finding_heads=sections_findings.HEADS,
        findings_differ=CHEST_DIFFERS,
        differs=DIFFERS,
        published=sections_volume.published(content),
        figures=dict.fromkeys(FIGURES, "")
        | {name: _image(svg.encode(), "image/svg+xml") for name, svg in draw(content, rows).items()},
        curves={
            stage: _image(figures.training_curves(curves, stage_title(stage)).encode(), "image/svg+xml")
            for stage, curves in content.curves.items()
        },
        gallery=_gallery(content.pictures),
        contact_sheet=_picture(content.contact_sheet) if content.contact_sheet else None,
    )


def draw(content: Content, rows: dict[str, Rows] | None = None) -> dict[str, str]:
    """The figures that the content allows, as SVG text by name (see FIGURES)."""
    rows = _rows(content) if rows is None else rows
    out = {}
    both = {target: part for target, part in rows.items() if figures.two_classes(part)}
    if (steps := _flow(content, rows)) and len(steps) > 1:
        out["flow"] = figures.flow(steps, CLASSES.get(content.main or "", ("negative", "positive")))
    if both:
        out["roc"] = figures.roc_curves(both, _reader_points(content))
        out["scores"] = figures.score_histograms(both)
        if calibrated := {t: part for t, part in both.items() if t not in TYPES and probable(part.score)}:
            out["calibration"] = figures.calibration_curves(calibrated)
    if "localizer" in rows and any(name in rows["localizer"].table for name in ("head_error_mm", "head_error_pct")):
        part = rows["localizer"]
        if part.table[[n for n in ("head_error_mm", "head_error_pct") if n in part.table]].notna().any().any():
            out["heads"] = figures.head_errors(part)
    out |= sections_volume.draw(content)
    main = content.main
    if main is not None and (whole := record(content.results, main, "intention", "auc")) is not None and known(whole):
        entries: list[tuple[str, str, Any]] = [("All", "All", whole)]
        groups = [(c, g, m) for c, g, m in sections.groups(content, main) if known(record(m, "auc"))]
        several = [column for column, count in Counter(column for column, _, _ in groups).items() if count > 1]
        for column, group, metrics in groups:
            metric, positives = record(metrics, "auc"), record(metrics, "sensitivity")
            if metric is not None and positives is not None and column in several:
                name = f"{group.replace('_', ' ')}  ({positives['n']} of {metric['n']} positive)"
                entries.append((COLUMNS.get(column, title(column, {})), name, metric))
        if len(entries) > 1:
            out["groups"] = figures.forest(entries, f"{METRICS['auc']} on intention, {title(main, TITLES).lower()}")
    return out


def _rows(content: Content) -> dict[str, Rows]:
    if content.table is None:
        return {}
    names = [name or "test" for name in texts(content.table, "split")]
    part = content.table[[name == content.split for name in names]]
    targets = [t for t in content.results if f"label_{t}" in part and f"score_{t}" in part]
    return {target: rows_of(part, target) for target in targets} if len(part) else {}


def _reader_points(content: Content) -> dict[str, Any]:
    """target -> readers' points against the truth; of the main target, where readers were asked for."""
    readers = content.results.get(content.main or "", {}).get("readers", {})
    return {str(content.main): readers["points"]} if "points" in readers else {}


def _flow(content: Content, rows: dict[str, Rows]) -> list[dict[str, Any]]:
    main = content.main
    return sections.waterfall(rows[main], main) if main in rows else []


def _coverage(content: Content) -> list[dict[str, Any]]:
    out = []
    for target, metrics in content.results.items():
        if record(metrics, "coverage") is None or metrics["coverage"]["n"] == 0:
            continue
        names = ("coverage", "coverage_positive", "coverage_negative", "missed_exclusion")
        cells = [interval(record(metrics, name)) for name in names]
        out.append({"title": title(target, TITLES), "n": metrics["coverage"]["n"], "cells": cells})
    return out


def _groups(content: Content) -> list[dict[str, Any]]:
    main = content.main
    order = [main, *(name for name in content.results if name != main)] if main else []
    out = []
    for target in order:
        rows = sections.group_rows(content, str(target))
        if rows:
            heads = sections.group_heads(str(target), rows)
            out.append({"title": title(str(target), TITLES), "heads": heads, "rows": rows, "open": target == main})
    return out


def _gallery(pictures: list[Picture]) -> list[tuple[str, list[tuple[str, str]]]]:
    headings = list(dict.fromkeys(picture.group for picture in pictures))
    return [(h, [(_picture(p.path), p.caption) for p in pictures if p.group == h]) for h in headings]


def _picture(path: Path) -> str:
    """A picture file as a data URI: as it is when small, else reduced and as JPEG."""
    data = path.read_bytes()
    kind = "image/jpeg" if path.suffix.lower() in (".jpg", ".jpeg") else "image/png"
    if len(data) > _LARGE and (pixels := cv2.imread(str(path), cv2.IMREAD_COLOR)) is not None:
        scale = min(1.0, _WIDEST / pixels.shape[1])
        if scale < 1:
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        data, kind = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes(), "image/jpeg"
    return _image(data, kind)


def _image(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
