"""Which side of the patient a side of the picture shows."""

from __future__ import annotations

import numpy as np

from domainseg.imaging.film import Film
from domainseg.imaging.geometry import Affine

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}

# Frontal views by ViewPosition: only for these, or when nothing is said, does the viewing convention hold.
FRONTAL = frozenset(
    (
        *("", "AP", "PA", "FRONTAL", "AP AXIAL"),
        *("ANTERO-POSTERIOR", "POSTERO-ANTERIOR", "ANTEROPOSTERIOR", "POSTEROANTERIOR"),  # ViewCodeSequence says it so
    )
)
# Parts that are one, not a pair: there a laterality tag speaks of the side of interest, not of the whole picture.
_UNPAIRED = ("PELVIS", "ABDOMEN", "SPINE", "CHEST")


def patient_side(film: Film, upright: Affine, image_side: str, *, alone: bool = True) -> tuple[str, str]:
    """The patient's side ("L", "R" or "unknown") that lies at ``image_side`` of the upright picture, and its source.

    upright: 3x3 affine from the upright picture's pixels to source pixels; image_side: "left" or "right" there.
    Sources, in this order:

    - "orientation": PatientOrientation gives the direction of that side in the untouched source, whatever the view and
      however the film is turned or mirrored.
    - "laterality": a laterality tag names the one hip in the film. In a film of an unpaired part (pelvis), or of two
      hips (``alone`` is False), it counts only for the hip that lies where the viewing convention puts it.
    - "assumed": frontal films are hung with the patient's right at the picture's left, PA as AP.
    - "none": lateral and other views, and an orientation that contradicts the upright picture; the side is "unknown".
    """
    if image_side not in ("left", "right"):
        raise ValueError(f"image_side is {image_side!r}, not 'left' or 'right'")
    if film.orientation is not None:
        letter = _letter(film.orientation, upright, image_side)
        if letter in ("L", "R"):
            return letter, "orientation"
    mirrored = np.linalg.det(upright[:2, :2]) < 0
    conventional = "R" if (image_side == "left") != mirrored else "L"
    part = film.metadata.get("body_part", "").upper()
    of_one = alone and not any(name in part for name in _UNPAIRED)
    if film.laterality and (film.laterality == conventional or of_one):
        return film.laterality, "laterality"
    if film.orientation is None and film.metadata.get("view", "").upper() in FRONTAL:
        return conventional, "assumed"
    return "unknown", "none"


def _letter(orientation: tuple[str, str], upright: Affine, image_side: str) -> str:
    """The main direction (L, R, A, P, H, F) in which ``image_side`` lies; "" when the two directions share an axis."""
    row, column = orientation[0][0], orientation[1][0]
    if column in (row, OPPOSITE[row]):
        return ""
    x, y = upright[:2, :2] @ np.array([-1.0 if image_side == "left" else 1.0, 0.0])
    along, amount = (row, x) if abs(x) >= abs(y) else (column, y)
    return along if amount > 0 else OPPOSITE[along]
