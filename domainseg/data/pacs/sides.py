"""Left and right of annotations: what the annotator meant, and whether what was marked can be true.

hip_left and hip_right are sides of the upright picture. A film is brought upright by quarter turns only, so a mirrored
film stays mirrored. Directions are unit vectors (x, y) in pixels of the film as stored.
"""

from __future__ import annotations

from domainseg.data.pacs.match import FilmInfo
from domainseg.imaging.sides import FRONTAL, OPPOSITE

Direction = tuple[int, int]

# Stored direction that is "down" in the upright picture, by label_turn (np.rot90, counter-clockwise).
_DOWN: dict[int, Direction] = {0: (0, 1), 1: (-1, 0), 2: (0, -1), 3: (1, 0)}


def upright_right(film: FilmInfo, turn: int | None) -> Direction | None:
    """The stored direction that points to the right in the upright picture; None when nobody knows.

    turn: label_turn when it was annotated; it goes before PatientOrientation, whose feet end is down.
    """
    if turn is not None:
        down = _DOWN[turn]
    else:
        letters = [item[0] for item in film.orientation] if film.orientation else []
        ways = {"F": 1, "H": -1}
        upright = [(place, ways[letter]) for place, letter in enumerate(letters) if letter in ways]
        if len(upright) != 1:
            return None
        place, way = upright[0]
        down = (way, 0) if place == 0 else (0, way)
    return down[1], -down[0]


def picture_part(patient_part: str, film: FilmInfo, turn: int | None) -> str:
    """hip_left or hip_right of the picture from the patient's; "" when the film does not tell.

    PatientOrientation decides; without it, frontal films hang with the patient's left at the picture's right.
    """
    other = {"hip_left": "hip_right", "hip_right": "hip_left"}
    if film.orientation is None:
        return other[patient_part] if film.view in FRONTAL else ""
    right = upright_right(film, turn)
    if right is None:
        return ""
    letter = film.orientation[0 if right[0] else 1][0]
    if sum(right) < 0:
        letter = OPPOSITE.get(letter, "")
    if letter not in ("L", "R"):
        return ""
    return other[patient_part] if letter == "L" else patient_part


def contradicts(left: tuple[float, float], right: tuple[float, float], film: FilmInfo, turn: int | None) -> bool:
    """Whether the head of hip_left (x, y) lies to the right of that of hip_right in the upright picture.

    A film of which nobody knows how it is turned is taken to be upright when its heads lie side by side.
    """
    across = upright_right(film, turn)
    step = right[0] - left[0], right[1] - left[1]
    if across is None:
        across = (1, 0) if abs(step[0]) > abs(step[1]) else (0, 0)
    return step[0] * across[0] + step[1] * across[1] < 0
