"""Pictures of what the cascade saw: ROI, femoral head, localisation map and call, drawn on the untouched film."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case, Exclusion
from domainseg.files import write_bytes
from domainseg.imaging.film import Film
from domainseg.imaging.geometry import Affine, inverse, resize, step, transform, warp

LONG_SIDE = 1024  # pixels of the picture's longer side
_CALLED, _CLEAR, _EXCLUDED = (60, 60, 235), (90, 190, 90), (40, 190, 235)  # BGR


def film_picture(film: Film, long_side: int = LONG_SIDE) -> tuple[NDArray[np.uint8], Affine]:
    """The film as 8-bit BGR [h, w, 3] with its longer side at ``long_side`` pixels, and the affine to source pixels."""
    scale = min(1.0, long_side / max(film.shape))
    shape = (max(1, round(film.shape[0] * scale)), max(1, round(film.shape[1] * scale)))
    affine = resize(film.shape, shape)
    grey = (np.clip(warp(film.pixels, affine, shape), 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), dtype=np.uint8), film.geometry @ affine


def overlay(film: Film, results: Sequence[Case | Exclusion], *, heat: bool = True) -> NDArray[np.uint8]:
    """The film with what the cascade made of it, 8-bit BGR [h, w, 3].

    Each ROI is a square (red: called, green: not called, yellow: excluded) with its score; the map is shown where it
    says more than even odds, the pointed place as a cross.
    """
    picture, affine = film_picture(film)
    to_picture = inverse(affine)
    notes = []
    for result in results:
        values: Any = result.values
        if isinstance(result, Case) and heat and "map" in result.arrays:
            picture = _heat(picture, affine, result)
        if "roi_x1" not in values:
            notes.append(f"excluded: {result.reason}" if isinstance(result, Exclusion) else "")
            continue
        corners = transform(to_picture, [[values[f"roi_x{k}"], values[f"roi_y{k}"]] for k in range(1, 5)])
        if isinstance(result, Exclusion):
            color, text = _EXCLUDED, f"{result.part}: {result.reason}"
        else:
            called = values.get("location", "none") != "none"
            color = _CALLED if called else _CLEAR
            score, location = values.get("score_fracture", float("nan")), values.get("location", "")
            text = f"{result.part} {values['side']}: {score:.2f} {location}"
        cv2.polylines(picture, [np.round(corners).astype(np.int32)], True, color, 2, cv2.LINE_AA)
        x, y = transform(to_picture, [values["head_x"], values["head_y"]])
        radius = values["head_diameter"] / 2 / step(affine)
        cv2.circle(picture, (round(x), round(y)), round(radius), color, 1, cv2.LINE_AA)
        if "pointing_x" in values and color == _CALLED:
            x, y = transform(to_picture, [values["pointing_x"], values["pointing_y"]])
            cv2.drawMarker(picture, (round(x), round(y)), color, cv2.MARKER_CROSS, 18, 2, cv2.LINE_AA)
        place = (max(2, int(corners[:, 0].min()) + 4), min(picture.shape[0] - 6, int(corners[:, 1].max()) - 8))
        write_on(picture, text, place, color)
    for k, note in enumerate(note for note in notes if note):
        write_on(picture, note, (8, 24 + 24 * k), _EXCLUDED)
    return picture


def draw_overlay(film: Film, results: Sequence[Case | Exclusion], path: Path) -> None:
    """Write the overlay as PNG, atomically; of findings their maps beside the film."""
    from domainseg.reporting import overlays_findings  # late: it draws with what is here

    whole = [result for result in results if isinstance(result, Case) and overlays_findings.has_maps(result)]
    write_png(overlays_findings.overlay(film, whole[0]) if whole else overlay(film, results), path)


def overlay_name(image: str, ending: str = ".png") -> str:
    """The file name of what is drawn of an image; different images have different ones, whatever characters they hold.

    Letters, digits and . _ - stay; all else, a folder's slash too, becomes %XX. Long names end in a hash.
    """
    safe = "".join(c if c.isalnum() or c in "._-" else "".join(f"%{byte:02X}" for byte in c.encode()) for c in image)
    if len(safe.encode()) > 200:
        safe = f"{safe.encode()[:150].decode(errors='ignore')}-{hashlib.sha256(image.encode()).hexdigest()[:32]}"
    return f"{safe}{ending}"


def write_png(picture: NDArray[np.uint8], path: Path) -> None:
    """Write an 8-bit picture as PNG, atomically."""
    write_bytes(path, cv2.imencode(".png", picture)[1].tobytes())  # imwrite does not say why it could not


def _heat(picture: NDArray[np.uint8], affine: Affine, case: Case) -> NDArray[np.uint8]:
    probability = 1 / (1 + np.exp(-np.clip(case.arrays["map"].astype(np.float64), -30, 30)))
    to_map = inverse(resize(case.shape, probability.shape)) @ inverse(case.affine) @ affine
    share = warp(probability.astype(np.float32), to_map, picture.shape[:2])
    weight = np.clip((share - 0.5) * 1.2, 0, 0.6)[..., None]
    return np.asarray(picture * (1 - weight) + np.array([40, 40, 255]) * weight, dtype=np.uint8)


def write_on(picture: NDArray[np.uint8], text: str, place: tuple[int, int], color: tuple[int, int, int]) -> None:
    """Text on a dark ground; ``place``: (x, y) of its lower left corner."""
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.55, 1)
    x, y = place
    cv2.rectangle(picture, (x - 3, y - height - 4), (x + width + 3, y + below + 1), (0, 0, 0), cv2.FILLED)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, color, 1, cv2.LINE_AA)
