"""The demonstration's page: one table, one figure, what the cascade does not escape, and how fair it all is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.data.manifest import Manifest
from domainseg.imaging import read_film
from domainseg.imaging.film import Film
from domainseg.probes.common import FEW
from domainseg.reporting.figures import INK, MUTED, NEGATIVE, POSITIVE, as_svg, drawing
from domainseg.reporting.page import Figure, Page, Section, Table
from domainseg.reporting.words import interval, number, several

TESTS = {"inside": "as in training", "absent": "no relation", "reversed": "turned round"}
PLACES = {"outside": "Outside the ROI", "inside": "Inside the ROI", "both": "Outside and inside"}
_COLORS = (POSITIVE, "#d98a2b", NEGATIVE, "#5b8c5a", INK, "#8c5a8c", MUTED)
_STYLES = ("-o", "--s", "-^", "--D", "-v", ":P", ":x")
SMALL = 0.05  # a fall of the AUC by less than this is called small (our choice)


def page_of(record: Mapping[str, Any], pictures: Sequence[Figure] = ()) -> Page:
    """The whole page. record: what caveats.json holds. pictures: one patient at the sites."""
    cells, films = record["cells"], record["films"]
    return Page(
        title="The caveats, measured",
        subtitle=f"Simulated pelvis films of three sites, {films['train']} to learn from, seed {record['seed']}.",
        brief=findings(record),
        warnings=warnings_of(record),
        sections=[
            Section(
                "The table",
                text=HOW,
                tables=[main_table(record), moved_table(record)],
                figures=[Figure(drawn(record), "AUC per film with 95 % intervals. Dotted: site alone.")]
                if cells
                else [],
            ),
            Section("The cascade against the other models", text=[PAIRED], tables=[paired_table(record)]),
            Section("What the cascade does not escape", text=escapes(record)),
            Section("One patient at three sites", gallery=pictures),
            *([checks_section(record["checks"])] if record["checks"] else []),
            Section("How fair this is", text=FAIR),
            Section("Cells", tables=[cells_table(cells)], text=[took(record)]),
        ],
    )


HOW = [
    """At site A fractures are ten times as frequent as at sites B and C while models learn. Each test patient was
    filmed at all three sites: the same bones, the same fracture. The tests differ only in how much each of these
    films counts: as often as fractured and intact patients come to the site in training, as often for both, or the
    other way round. A model that reads the bone alone has the same AUC in all three.""",
    """What gives a site away outside the ROI: marker, collimation and text, of which no pixel of a true ROI shows
    anything; inside: grey scale, sharpness and noise; both: all of these, wherever they lie, and the film's size.""",
]
PAIRED = "AUC of the cascade minus that of the other model: the same films and weights, paired by patient."
FAIR = [
    """The same for all models: patients, films, network and random seed. Films and ROIs at 224 px stand in a frame of
    256 px with an empty margin, since the network halves its input eight times.""",
    """The same for the four models {whole film, ROI} x {224, 1024 px}: outlined fractures to learn from, the number
    of steps and the high-pass in millimetres. Not the same: a patch of 256 px is all of a film at 224 px and a small
    part of one at 1024 px; one film makes two ROIs; the ROI models are told where the hip is.""",
    """The cascade is the network of the ROI at 1024 px behind filters and a localizer that learned on films without
    this confounder, and cuts ROIs where it finds the hips. What its filters lose counts against it.""",
    """The model “labels only” learns as whole-film models mostly do: grey values as they are, one label a film, no
    outlines. It differs from “whole film, 224 px” in supervision and preprocessing, not in what it is shown.""",
    """A film's score is that of its highest hip. The films are frontal and show no metal: what the filters are for
    (other views, implants) is no part of this comparison.""",
]
ESCAPES = """Cutting a ROI keeps out what lies elsewhere on the film, not what lies in it: a detector's grey scale,
    sharpness and noise go through, and so does a lead letter or a collimator's edge beside the hip. The ROI is 3.4 head
    diameters wide and reaches the film's lateral edge: where markers lie as they do in life (“both”), site C's letter,
    low beside the hip, is in one of the two ROIs of each film."""
BOOTSTRAP = """Difference: turned round minus as in training. Bootstrap by patient, all films of one together; where
    an AUC is above 0.95 or below 0.05, no narrower than the exact binomial interval at the patients of the rarer
    class."""
MOVED = """Higher as A: how often a patient's film scores higher at site A than the same patient's at the other; 0.5
    where the site is not used. Shift: of the log-odds, in standard deviations between patients of one label at one
    site. Lost: films without a score, of all sites together, judged on intention."""
CASE_MIX = """It cannot escape case mix either: where patients with fractures really are others, a site may rightly
    tell. And a film that its filters lose has no answer at all."""


def main_table(record: Mapping[str, Any]) -> Table:
    """AUC of each test, and reversed minus inside."""
    rows = [
        (
            PLACES[cell["place"]],
            named(cell, record["cells"]),
            *(interval(cell["auc"][test], 2) for test in TESTS),
            interval(cell["fall"], 2),
            f"{cell['films']} ({cell['fractured']})",
        )
        for cell in record["cells"]
    ]
    alone = record["site_alone"]
    gap = number(alone["reversed"] - alone["inside"], 2)
    rows.append(("", "Site alone, by design", *(number(alone[test], 2) for test in TESTS), gap, ""))
    return Table(
        ("Site shows", "Model", *TESTS.values(), "Difference", "Films (fractured)"),
        rows,
        "AUC per film (95 %), by the relation of site and label in the test",
        BOOTSTRAP,
        numeric=(2, 3, 4, 5, 6),
    )


def moved_table(record: Mapping[str, Any]) -> Table:
    """Within-site AUC, and what the same film scores elsewhere."""
    first = record["cells"][0] if record["cells"] else {"within": {}, "higher_as_a": {}}
    sites, others = list(first["within"]), list(first["higher_as_a"])
    return Table(
        (
            *("Site shows", "Model"),
            *(f"Within {site}" for site in sites),
            *(f"Higher as A than as {site}" for site in others),
            *(f"Shift from {site} to A, SD" for site in others),
            "Lost",
        ),
        [
            (
                PLACES[cell["place"]],
                named(cell, record["cells"]),
                *(interval(cell["within"][site], 2) for site in sites),
                *(interval(cell["higher_as_a"][site], 2) for site in others),
                *(interval(cell["shift"][site], 2) for site in others),
                str(cell["lost"]),
            )
            for cell in record["cells"]
        ],
        "AUC within each site, and the same film at another site (95 %)",
        MOVED,
        numeric=range(2, 3 + len(sites) + 2 * len(others)),
    )


def paired_table(record: Mapping[str, Any]) -> Table:
    """The cascade minus each other model."""
    rows = [
        (PLACES[pair["place"]], pair["title"], *(interval(pair["auc"][test], 2) for test in TESTS))
        for pair in record["pairs"]
    ]
    heads = ("Site shows", "Against", *(f"Difference, {name}" for name in TESTS.values()))
    return Table(heads, rows, "Cascade minus the other model (95 %)", numeric=(2, 3, 4))


CHECKED = {
    "off": "without a confounder: alarms are false ones",
    "severe": "with a severe one: the use of the site is there to be found",
}


def checks_section(checks: Mapping[str, Any]) -> Section:
    """How often the audit raised an alarm, and found the site used, on films with and without a confounder."""
    rows = []
    for name, found in checks.items():
        units = found["units"]
        seen = [unit["site"]["detectable"]["value"] for unit in units if unit["site"]["detectable"] is not None]
        aucs = [unit["auc"]["value"] for unit in units]
        networks = len({unit["seed"] for unit in units})
        rows.append(
            (
                CHECKED[name],
                f"{len(units)} ({several(networks, 'network', 'networks')})",
                interval(found["alarms"], 2),
                interval(found["used"], 2),
                f"{number(min(seen), 2)} to {number(max(seen), 2)}" if seen else "–",
                f"{number(min(aucs), 2)} to {number(max(aucs), 2)}",
            )
        )
    heads = ("Films", "Draws", "Alarm", "Site used", "Site read from the films, AUC", "AUC of the score")
    note = "Draws of patients that no network has seen; alarm: for site, department or portable, Holm-corrected."
    return Section(
        "Is the audit right?", tables=[Table(heads, rows, "Audits of fresh draws (95 %)", note, (1, 2, 3, 4, 5))]
    )


def cells_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Which cell took how long, and on what."""
    return Table(
        ("Place", "Model", "Seed", "Patients", "Seconds", "of these training", "Machine"),
        [
            (
                cell["place"],
                cell["title"],
                str(cell["seed"]),
                str(cell["patients"]),
                str(cell["seconds"]["all"]),
                str(cell["seconds"]["training"]),
                machine(cell["hardware"]),
            )
            for cell in cells
        ],
        numeric=(2, 3, 4, 5),
        note="A network that two models share is trained once: by the first that needs it.",
    )


def machine(hardware: Mapping[str, Any]) -> str:
    """Processor and threads, or the graphics card, in words."""
    return str(hardware["gpu"] or f"{hardware['processor']}, {several(hardware['threads'], 'thread', 'threads')}")


def took(record: Mapping[str, Any]) -> str:
    """What all cells took."""
    seconds = sum(cell["seconds"]["all"] for cell in record["cells"])
    return f"All cells: {number(seconds / 60, 0)} minutes, filters and simulation included where they were missing."


def named(cell: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str:
    """The model's title, with its seed where there are several."""
    several_seeds = len({other["seed"] for other in cells}) > 1
    return f"{cell['title']}, seed {cell['seed']}" if several_seeds else str(cell["title"])


def findings(record: Mapping[str, Any]) -> list[str]:
    """The result in a sentence a cell, worded by what was measured."""
    said = []
    for cell in record["cells"]:
        inside, turned = (number(cell["auc"][test]["value"], 2) for test in ("inside", "reversed"))
        gap = cell["fall"]
        said.append(
            f"{PLACES[cell['place']]}, {named(cell, record['cells'])}: AUC {inside} with the relation as in training, "
            f"{turned} with it turned round; {verdict(cell)} (difference {interval(gap, 2)})."
        )
    for name, found in (record["checks"] or {}).items():
        many, called = len(found["units"]), sum(bool(unit["alarms"]) for unit in found["units"])
        used = sum(unit["site"]["used"] for unit in found["units"])
        said.append(f"Audit of {many} draws {CHECKED[name]}; an alarm in {called}, use of the site found in {used}.")
    return said


def verdict(cell: Mapping[str, Any]) -> str:
    """What the difference of reversed and inside says; nothing where a class has too few films."""
    gap = cell["fall"]
    if min(cell["fractured"], cell["films"] - cell["fractured"]) < FEW:
        return "too few films to say"
    if gap["high"] < 0:
        return "it falls" if gap["low"] < -SMALL else f"it falls, by less than {SMALL}"
    if gap["low"] > -SMALL:
        return f"no fall of {SMALL} or more"
    return f"no fall is shown, one of {number(-gap['low'], 2)} is not excluded"


def escapes(record: Mapping[str, Any]) -> list[str]:
    """What still reaches the cascade, from the same films at other sites."""
    said = [ESCAPES]
    for cell in record["cells"]:
        if cell["model"] == "cascade":
            moved = [site for site, often in cell["higher_as_a"].items() if not often["low"] <= 0.5 <= often["high"]]
            higher = "; ".join(
                f"than as one of {site} in {interval(often, 2)}, by {interval(cell['shift'][site], 2)} SD"
                for site, often in cell["higher_as_a"].items()
            )
            said.append(
                f"{PLACES[cell['place']]}, {named(cell, record['cells'])}: the same film scores higher as one of A "
                f"{higher}. {'The site moves its score' if moved else 'No use of the site was found'}; the AUC changes "
                f"by {interval(cell['fall'], 2)} when the relation is turned round."
            )
    return [*said, CASE_MIX]


def warnings_of(record: Mapping[str, Any]) -> list[str]:
    """What to know before reading on."""
    said = ["All films are simulated; how large these effects are on real films is not known from here."]
    if len({cell["seed"] for cell in record["cells"]}) == 1:
        said.append("One trained network a cell: intervals speak of patients, not of another training.")
    return said


def drawn(record: Mapping[str, Any]) -> str:
    """AUC over the three tests, a panel a place, a line a model."""
    cells = record["cells"]
    places = list(dict.fromkeys(cell["place"] for cell in cells))
    titles = list(dict.fromkeys(named(cell, cells) for cell in cells))
    with drawing(len(places), height=3.6, width=4.2) as (figure, axes):
        for axis, place in zip(axes, places, strict=True):
            axis.axhline(0.5, color="#d5d8dc", linewidth=0.8)
            axis.plot(range(3), [record["site_alone"][test] for test in TESTS], ":", color=MUTED, label="site alone")
            for cell in (cell for cell in cells if cell["place"] == place):
                number_ = titles.index(named(cell, cells))
                color, style = _COLORS[number_ % len(_COLORS)], _STYLES[number_ % len(_STYLES)]
                x = np.arange(3) + 0.06 * (number_ - (len(titles) - 1) / 2)
                records = [cell["auc"][test] for test in TESTS]
                value = np.array([one["value"] for one in records])
                reach = np.abs([[one[end] - one["value"] for one in records] for end in ("low", "high")])
                axis.errorbar(
                    x, value, reach, fmt=style, color=color, markersize=5, linewidth=1.4, elinewidth=1,
                    label=named(cell, cells),
                )  # fmt: skip
            axis.set_xticks(range(3), list(TESTS.values()))
            axis.set(title=f"{PLACES[place]}", ylim=(-0.02, 1.02))
        axes[0].set_ylabel("AUC per film")
        axes[0].legend(loc="lower left")
        return as_svg(figure)


def gallery(manifests: Mapping[str, Mapping[str, Manifest]]) -> Iterator[Figure]:
    """The first fractured patient of each place at each site. manifests: place -> site -> films."""
    for place, by_site in manifests.items():
        for site, films in by_site.items():
            whole = films.targets[(films.targets["part"] == "whole") & (films.targets["label_fracture"] == 1)]
            if len(whole):
                film = read_film(films.path(str(whole["image"].iloc[0])))
                yield Figure(_thumbnail(film), f"{PLACES[place]}: site {site}")


def _thumbnail(film: Film, width: int = 420) -> bytes:
    low, high = np.percentile(film.pixels[::4, ::4], (0.5, 99.5))
    size = (width, round(width * film.shape[0] / film.shape[1]))
    small: NDArray[Any] = cv2.resize(film.pixels, size, interpolation=cv2.INTER_AREA)
    grey = np.clip((small - low) / max(float(high - low), 1e-6), 0, 1) * 255
    return cv2.imencode(".jpg", grey.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
