"""Where the voxels of a simulated scan lie: pixel size, slice distance, gantry tilt, the patient's pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.phantom.heads.shapes import Place


@dataclass(frozen=True)
class Scan:
    """The voxels of a scan. affine: 4x4 from (column, row, slice) to LPS mm, slices from the feet to the head.

    shape: slices, rows, columns. subs: how many thin slices a slice is averaged from. turn, centre: the patient's
    pose, place in the body = turn (LPS - centre). distance: mm between slices along the normal. tilt: degrees.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    subs: int
    turn: NDArray[np.float64]
    centre: NDArray[np.float64]
    distance: float
    tilt: float

    @property
    def voxel_ml(self) -> float:
        """Millilitres of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def pixel(self) -> float:
        """Millimetres between columns."""
        return float(np.linalg.norm(self.affine[:3, 0]))

    def place(self, number: int, every: int = 1) -> Place:
        """The places of the thin slices of one slice, [subs, rows, columns], or of every n-th row and column."""
        _, rows, columns = self.shape
        to_body = self.turn @ self.affine[:3, :3] @ np.diag([every, every, 1 / self.subs])
        first = number + 0.5 / self.subs - 0.5
        start = self.turn @ (self.affine[:3, 3] + self.affine[:3, 2] * first - self.centre)
        i = np.arange(0, columns, every, dtype=float)[None, None, :] / every
        j = np.arange(0, rows, every, dtype=float)[None, :, None] / every
        k = np.arange(self.subs)[:, None, None]
        x, y, z = (
            (start[n] + to_body[n, 0] * i + to_body[n, 1] * j + to_body[n, 2] * k).astype(np.float32) for n in range(3)
        )
        back = np.linalg.inv(to_body)
        return Place(x, y, z, np.column_stack([back, -back @ start]))


def scan(
    *,
    pixel: float,
    distance: float,
    size: int,
    bottom: float,
    top: float,
    tilt: float,
    angles: tuple[float, float, float],
    shift: tuple[float, float],
    subs: int,
) -> Scan:
    """A scan from ``bottom`` to ``top`` (mm along the patient).

    pixel and distance in mm; tilt of the gantry, and pitch, roll, yaw of the patient, in degrees; shift of the patient
    in plane in mm. With tilt the rows lean while slices follow each other along the table: a shear.
    """
    t = np.deg2rad(tilt)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(t), -np.sin(t)])
    step = distance / np.cos(t)  # along the table; ``distance`` is along the normal
    pitch, roll, yaw = np.deg2rad(angles)
    turn = (
        np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        @ np.array([[np.cos(roll), 0, -np.sin(roll)], [0, 1, 0], [np.sin(roll), 0, np.cos(roll)]])
        @ np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * pixel, column * pixel, (0, 0, step)
    affine[:3, 3] = np.array([0, 0, bottom]) - (size - 1) / 2 * pixel * (row + column)
    count = max(3, int((top - bottom) / step) + 1)
    return Scan(affine, (count, size, size), subs, turn, np.array([*shift, 0.0]), distance, tilt)
