"""Shapes of annotation files become rows of the targets table; what cannot is left out and told why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.data.annotations.shapes import Points, Shape, head, outline
from domainseg.data.lesions import draw_polygons
from domainseg.data.pacs.match import FilmInfo
from domainseg.data.pacs.sides import contradicts, picture_part
from domainseg.data.privacy import keyed_hash
from domainseg.data.tables import OF_FILM, PARTS, ManifestError, is_binary_label, is_numeric, rule
from domainseg.files import atomic_path

HIPS = ("hip_left", "hip_right")
USES = ("head", "lesion", "femur")
UNKNOWN_CATEGORY = "unknown_category"
REASONS = {
    UNKNOWN_CATEGORY: "no rule of `categories` fits its name",
    "no_part": "neither name, rule nor attribute says which hip it is",
    "side_unknown": "the patient's left and right cannot be found in this film (orientation or view missing)",
    "sides_contradict": "hip_left lies to the right of hip_right: left and right were mixed up, or the film is turned",
    "wrong_shape": "a shape that cannot say this (a head by a tag, a lesion by a point, ...)",
    "other_size": "drawn on a picture of another size than the film",
    "other_grid": "a mask with other pixels than the film's",
    "outside_film": "lies outside the film: another film, spacing or coordinate system",
    "wrong_value": "a label or attribute with a value that its column does not allow",
    "labels_contradict": "another annotation of this part says otherwise; this label is left unknown",
    "head_twice": "this hip has a head already; the first counts",
}
_SIDES = {"left": "hip_left", "right": "hip_right"}
_MEANT = {**_SIDES, "l": "hip_left", "r": "hip_right", **{part: part for part in PARTS}}


@dataclass(frozen=True)
class Category:
    """A rule of conf/manifest.yaml: what an annotation of this name says."""

    match: re.Pattern[str]
    part: str
    use: str
    labels: Mapping[str, str]


@dataclass
class Part:
    """What was gathered of one part of a film."""

    labels: dict[str, str] = field(default_factory=dict)
    doubted: set[str] = field(default_factory=set)
    head: tuple[float, float, float] | None = None
    lesions: list[tuple[str, str | Shape]] = field(default_factory=list)  # column, and its cell or the mask to write
    femur: list[Shape] = field(default_factory=list)
    shapes: int = 0


Out = tuple[Shape, str, str]  # shape, image or "", reason


def categories(rules: Sequence[Mapping[str, Any]]) -> list[Category]:
    """The checked rules. Raises ManifestError."""
    found = []
    for number, entry in enumerate(rules):
        where = f"categories[{number}]"
        if unknown := sorted(set(entry) - {"match", "part", "as", "labels"}):
            raise ManifestError(f"{where}: {unknown[0]} is not known; a rule has match, part, as and labels")
        use, part = str(entry.get("as") or ""), str(entry.get("part") or "")
        if use not in (*USES, ""):
            raise ManifestError(f"{where}: as={use}: one of {', '.join(USES)}, or nothing")
        if part not in (*PARTS, ""):
            raise ManifestError(f"{where}: part={part}: one of {', '.join(PARTS)}")
        labels = {str(name): _cell(value) for name, value in (entry.get("labels") or {}).items()}
        for name, cell in labels.items():
            if (rule(name) is None and name != "implant") or not _allowed(name, cell):
                raise ManifestError(f"{where}: labels.{name}={cell} is not a label of the targets table")
        try:
            found.append(Category(re.compile(str(entry["match"])), part, use, labels))
        except (KeyError, re.error) as error:
            raise ManifestError(f"{where}: match is missing or no regular expression ({error})") from None
    return found


def check_meaning(sides: str) -> None:
    """Raise ManifestError for a meaning of left and right that is not known."""
    if sides not in ("picture", "patient"):
        raise ManifestError(f"annotation_sides={sides}: picture or patient")


class Gatherer:
    """Takes shapes one by one; ``parts`` and ``out`` hold what became of them.

    sides: "picture" or "patient", what left and right mean in the annotations.
    """

    def __init__(self, rules: Sequence[Category], films: Mapping[str, FilmInfo | str], sides: str) -> None:
        check_meaning(sides)
        self.rules, self.films, self.sides = rules, films, sides
        self.parts: dict[tuple[str, str], Part] = {}
        self.out: list[Out] = []
        self.info: dict[str, FilmInfo] = {}
        self._later: list[tuple[Shape, FilmInfo, Category, str]] = []

    def add(self, shape: Shape) -> None:
        """Find the film and the rule of a shape; it is put down in ``finish``, when the film's turn is known."""
        answers = [self.films[name] for name in shape.films]
        film = next((answer for answer in answers if isinstance(answer, FilmInfo)), None)
        if film is None:
            self.out.append((shape, "", str(answers[0])))
            return
        side, name = _take_side(shape.name)
        category = next((rule for rule in self.rules if rule.match.fullmatch(name)), None)
        if category is None:
            self.out.append((shape, film.image, UNKNOWN_CATEGORY))
            return
        self.info[film.image] = film
        given = shape.attributes.get("part") or shape.attributes.get("side") or ""
        meant = category.part or side or _MEANT.get(given.strip().casefold(), "")
        self._later.append((shape, film, category, meant))

    def finish(self) -> None:
        """Put all shapes down, then take back what contradicts itself."""
        told: dict[str, set[int]] = {}
        for shape, film, category, _ in self._later:
            turn = {**category.labels, **shape.attributes}.get("label_turn", "").removesuffix(".0")
            if turn in ("0", "1", "2", "3"):
                told.setdefault(film.image, set()).add(int(turn))
        turns = {image: min(said) for image, said in told.items() if len(said) == 1}
        for shape, film, category, meant in self._later:
            if reason := self._put(shape, film, category, meant, turns.get(film.image)):
                self.out.append((shape, film.image, reason))
        # A row says that this part is in the film; where nothing could be put down, nobody said so.
        self.parts = {key: target for key, target in self.parts.items() if target.shapes or target.labels}
        self._check_sides(turns)
        self._check_whole()

    def _put(self, shape: Shape, film: FilmInfo, category: Category, part: str, turn: int | None) -> str:
        """Put one shape down; the reason when it cannot be."""
        of_hip = category.use in ("head", "femur") or "label_localizer" in category.labels
        part = part or ("" if of_hip else "whole")
        if not part or (of_hip and part == "whole"):
            return "no_part"
        if self.sides == "patient" and part in HIPS and not (part := picture_part(part, film, turn)):
            return "side_unknown"
        if shape.size is not None and shape.size != (film.width, film.height):
            return "other_size"
        points = shape.points
        if shape.millimetres:
            points = points / np.array(film.spacing)
        places = points[:1] if shape.kind == "ellipse" else points
        limits = np.array([film.width, film.height]) - 0.5
        if len(places) and not _inside(shape.kind, places, limits):
            return "outside_film"
        target = self.parts.setdefault((film.image, part), Part())
        try:
            _shape_into(target, shape, category.use, points, film)
        except _Misfit as misfit:
            return str(misfit)
        target.shapes += 1
        said = {name.strip(): _cell(cell) for name, cell in shape.attributes.items() if _is_label(name.strip())}
        wrong = ""
        own = target
        for name, cell in {**category.labels, **said}.items():
            target = own if name not in OF_FILM else self.parts.setdefault((film.image, "whole"), Part())
            if not _allowed(name, cell):
                wrong = "wrong_value"
            elif cell and target.labels.setdefault(name, cell) != cell:
                target.doubted.add(name)
                wrong = "labels_contradict"
        return wrong

    def _check_sides(self, turns: Mapping[str, int]) -> None:
        """A film whose heads stand on the wrong sides loses all that was said of its hips."""
        for image, film in self.info.items():
            left, right = (self.parts.get((image, part)) for part in HIPS)
            if left is None or right is None or left.head is None or right.head is None:
                continue
            if contradicts(left.head[:2], right.head[:2], film, turns.get(image)):
                for part in HIPS:
                    del self.parts[image, part]
                for shape, other, category, meant in self._later:
                    if other.image == image and (meant in HIPS or category.use in ("head", "femur")):
                        self.out.append((shape, image, "sides_contradict"))

    def _check_whole(self) -> None:
        """Labels that were said in two ways, and a 0 of the film beside a 1 of a hip, are left unknown."""
        for (image, part), target in self.parts.items():
            for name in target.doubted:
                target.labels.pop(name, None)
            if part == "whole":
                for name in [name for name, cell in target.labels.items() if is_binary_label(name) and cell == "0"]:
                    hips = [hip for key, hip in self.parts.items() if key[0] == image and key[1] != "whole"]
                    clash = [hip for hip in hips if hip.labels.get(name) == "1"]
                    for one in ([target, *clash]) if clash else []:
                        one.labels.pop(name)
                        self.out.append((Shape(("",), name, "label"), image, "labels_contradict"))


class _Misfit(Exception):
    """A shape that cannot be put down; its text is a key of REASONS."""


def _shape_into(target: Part, shape: Shape, use: str, points: Points, film: FilmInfo) -> None:
    """Add the place of a shape, in pixels of the film, to a part. Raises _Misfit."""
    if use == "head":
        found = _circle(mask_on_film(shape, film)) if shape.mask is not None else head(shape.kind, points)
        if found is None:
            raise _Misfit("wrong_shape")
        if target.head is not None:
            raise _Misfit("head_twice")
        given = shape.attributes.get("diameter", "")
        if np.isnan(found[2]) and given and _allowed("diameter", given):
            found = (*found[:2], float(given))
        target.head = found
    elif use and shape.mask is not None:
        mask_on_film(shape, film)
        if use == "lesion":
            target.lesions.append(("mask", shape))
        else:
            target.femur.append(shape)
    elif use == "lesion" and shape.kind == "box":
        (left, top), (right, bottom) = points
        if right <= left or bottom <= top:
            raise _Misfit("wrong_shape")
        target.lesions.append(("box", ",".join(map(_number, (left, top, right - left, bottom - top)))))
    elif use in ("lesion", "femur") and shape.kind in ("polygon", "ellipse"):
        try:
            ring = outline(shape.kind, points, shape.attributes)
        except ValueError:  # an attribute that is called rotation and is none
            raise _Misfit("wrong_shape") from None
        if len(ring) < 3:
            raise _Misfit("wrong_shape")
        if use == "lesion":
            target.lesions.append(("polygon", " ".join(map(_number, ring.ravel()))))
        else:
            target.femur.append(replace(shape, kind="polygon", points=ring, millimetres=False))
    elif use == "femur":
        raise _Misfit("wrong_shape")
    # A point or a tag that is called like a lesion says that it is there, not where it ends: only its labels count.


def mask_on_film(shape: Shape, film: FilmInfo) -> NDArray[np.bool_]:
    """The pixels of a mask on its film, bool [height, width]. Raises _Misfit."""
    assert shape.mask is not None
    try:
        found = shape.mask()
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise _Misfit("wrong_shape") from error
    scale = film.spacing if shape.millimetres else (1.0, 1.0)
    if not np.allclose(np.array(found.step) / scale, 1, rtol=0.01):
        raise _Misfit("other_grid")
    corner = np.array(found.origin) / scale
    left, top = (int(place) for place in np.round(corner))
    if np.abs(corner - [left, top]).max() > 0.25:  # pixels
        raise _Misfit("other_grid")
    height, width = found.pixels.shape
    if left < 0 or top < 0 or left + width > film.width or top + height > film.height:
        raise _Misfit("outside_film")
    full = np.zeros((film.height, film.width), dtype=bool)
    full[top : top + height, left : left + width] = found.pixels
    return full


def _circle(mask: NDArray[np.bool_]) -> tuple[float, float, float] | None:
    y, x = np.nonzero(mask)
    return (float(x.mean()), float(y.mean()), 2 * float(np.sqrt(len(x) / np.pi))) if len(x) else None


def _inside(kind: str, points: Any, limits: Any) -> bool:
    """Points and centres lie on the film; of outlines, their middle: they may reach over the edge."""
    tested = points if kind == "points" else points.mean(axis=0, keepdims=True)
    return bool(((tested >= -0.5) & (tested <= limits)).all())


def bare_name(name: str) -> str:
    """A category's name as the rules see it."""
    return _take_side(name)[1]


def _take_side(name: str) -> tuple[str, str]:
    """("hip_left", "hip_head") from "Hip left head": lower case, words joined by _, without left or right."""
    words = [word for word in re.split(r"[\s_\-./]+", name.strip().casefold()) if word]
    sides = {word for word in words if word in _SIDES}
    rest = "_".join(word for word in words if word not in _SIDES)
    return (_SIDES[sides.pop()] if len(sides) == 1 else ""), rest


def _is_label(name: str) -> bool:
    """Whether an attribute of this name fills a column: only columns of closed vocabularies, since texts may tell."""
    return (name.startswith("label_") or name in ("fracture_class", "fracture_width_mm", "displacement_mm")) and rule(
        name
    ) is not None


def _allowed(name: str, cell: str) -> bool:
    known = rule(name)
    return not cell or known is None or known[0](cell)


def _cell(value: Any) -> str:
    text = str(int(value)) if isinstance(value, bool) else str(value).strip()
    return {"true": "1", "false": "0"}.get(text.casefold(), text)


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def write_targets(gathered: Gatherer, output: Path, key: bytes) -> pd.DataFrame:
    """The targets table of what was gathered, sorted by image and part; its masks are written below ``output``.

    The first row of a part holds its labels and head; every further lesion has a row of its own.
    """
    table: list[dict[str, Any]] = []
    for (image, part), target in sorted(gathered.parts.items(), key=lambda item: item[0]):
        film = gathered.info[image]
        row: dict[str, Any] = {"image": image, "part": part, **target.labels}
        if target.head is not None:
            row |= dict(zip(("x", "y", "diameter"), target.head, strict=True))
        if target.femur:
            polygons = [shape.points for shape in target.femur if shape.mask is None]
            mask = draw_polygons(polygons, (film.height, film.width))
            for shape in (shape for shape in target.femur if shape.mask is not None):
                mask |= mask_on_film(shape, film)
            row["femur_mask"] = _write_mask(mask, output, keyed_hash(key, "mask", image, part, "femur"))
        for number, (column, cell) in enumerate(target.lesions):
            if isinstance(cell, Shape):
                name = keyed_hash(key, "mask", image, part, f"lesion {number}")
                cell = _write_mask(mask_on_film(cell, film), output, name)
            if number:
                table.append(row)
                row = {"image": image, "part": part}
            row[column] = cell
        table.append(row)
    names = list(dict.fromkeys(["image", "part", *(str(name) for row in table for name in row)]))
    frame = pd.DataFrame(table, columns=names)
    for column in names:
        cells = frame[column]
        frame[column] = pd.to_numeric(cells) if is_numeric(column) else cells.fillna("").astype(str)
    return frame


def _write_mask(mask: NDArray[np.bool_], output: Path, name: str) -> str:
    """Write a PNG (255 inside) and return its path relative to ``output``."""
    path = f"masks/{name}.png"
    with atomic_path(output / path) as temporary:
        cv2.imwrite(str(temporary), mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    return path
