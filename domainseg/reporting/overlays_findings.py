"""Pictures of findings: the film, and beside it the map of a finding against its base rate."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case
from domainseg.cascade.findings import CALLED, MAP
from domainseg.cascade.operations import fit_frame
from domainseg.imaging.film import Film
from domainseg.imaging.geometry import Affine, inverse, warp
from domainseg.reporting.overlays import LONG_SIDE, film_picture, write_on

FULL = np.log(10.0)  # of a map: colours are full at ten times the base rate, or a tenth of it (our choice)
RAISES, LOWERS = (30, 30, 230), (220, 120, 20)  # BGR
LEGEND = "red raises, blue lowers; full colour: 10 times the base rate, or a tenth"
MOST = 4  # maps in a row


def has_maps(case: Case) -> bool:
    """Whether a case holds maps of findings."""
    return any(name.startswith(MAP) for name in case.arrays)


def called_of(case: Case) -> list[str]:
    """The findings that were called, those that say most first."""
    return most_raised(case, [str(name) for name in case.arrays[CALLED]])


def most_raised(case: Case, names: Sequence[str] | None = None) -> list[str]:
    """Findings by how far the middle of their map lies above the base rate."""
    names = [name.removeprefix(MAP) for name in case.arrays if name.startswith(MAP)] if names is None else names
    return sorted(names, key=lambda name: -float(case.arrays[f"{MAP}{name}"].mean()))


def panels(film: Film, case: Case, names: Sequence[str], long_side: int = LONG_SIDE) -> NDArray[np.uint8]:
    """The film, and the film under the map of each finding, side by side, 8-bit BGR."""
    picture, affine = film_picture(film, long_side)
    row = [picture]
    for name in names:
        panel = under_map(picture, affine, case, case.arrays[f"{MAP}{name}"])
        write_on(panel, f"{name.replace('_', ' ')} {case.values[f'score_{name}']:.2f}", (8, 24), (255, 255, 255))
        row.append(panel)
    return np.concatenate(row, axis=1)


def overlay(film: Film, case: Case) -> NDArray[np.uint8]:
    """What predict draws: the film and the maps of what was called, at most MOST; without a call the most raised."""
    names = (called_of(case) or most_raised(case)[:1])[:MOST]
    picture = panels(film, case, names, LONG_SIDE // 2)
    called = len(case.arrays[CALLED])
    more = f"; {called - MOST} more" if called > MOST else ""
    strip = np.zeros((30, picture.shape[1], 3), np.uint8)
    write_on(strip, f"{'called' if called else 'nothing called'}{more}; {LEGEND}", (8, 20), (255, 255, 255))
    return np.concatenate([picture, strip])


def under_map(picture: NDArray[np.uint8], affine: Affine, case: Case, cells: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture under a map [n, n] of log ratios; ``affine``: from the picture to source pixels."""
    frame, _ = fit_frame(case, len(cells))
    to_cells = inverse(frame) @ affine
    to_cells[:2, 2] += 1  # the cells at the border reach to the border
    ratio = warp(np.pad(cells, 1, mode="edge"), to_cells, (picture.shape[0], picture.shape[1]))
    share = np.clip(np.abs(ratio) / FULL, 0, 1)[..., None] * 0.6
    colour = np.where(ratio[..., None] > 0, np.array(RAISES), np.array(LOWERS))
    return np.asarray(picture * (1 - share) + colour * share, dtype=np.uint8)


def encoded(picture: NDArray[np.uint8]) -> bytes:
    """JPEG, for pages that hold many."""
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
