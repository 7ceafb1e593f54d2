"""What surrounds the anatomy: collimation, lead letters and burnt-in text, each site in its own manner."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.phantom.canvas import Map, Points, fixed, rotation
from domainseg.phantom.cohort import FilmPlan
from domainseg.phantom.detector import Site


@dataclass(frozen=True)
class Border:
    """Collimated field (corners in pixels) and marker of one film."""

    site: Site
    letter: str
    spacing: float
    corners: Points
    place: tuple[int, int]
    tilt: float
    text: str
    collimated: bool

    @staticmethod
    def of(
        site: Site, plan: FilmPlan, shape: tuple[int, int], spacing: float, rng: np.random.Generator, *, portable: bool
    ) -> Border:
        height, width = shape
        collimated = bool(rng.random() < {"A": 0.35, "B": 0.55, "C": 0.75}[site.name])
        margin = rng.uniform(0.0, 0.045, 4) if collimated else np.full(4, -0.02)
        box = np.array(
            [
                [margin[0] * width, margin[1] * height],
                [(1 - margin[2]) * width, margin[1] * height],
                [(1 - margin[2]) * width, (1 - margin[3]) * height],
                [margin[0] * width, (1 - margin[3]) * height],
            ]
        )
        lean = float(rng.normal(0, 0.5)) + (float(rng.normal(0, 1.5)) if portable else 0.0)
        middle = np.array([width / 2, height / 2])
        corners = (box - middle) @ rotation(lean).T + middle
        # The R stands at the patient's right, the picture's left, the L at the other side.
        letter = plan.side if plan.view != "pelvis_ap" else str(rng.choice(["R", "L"], p=[0.7, 0.3]))
        left = letter == "R" if plan.view in ("pelvis_ap", "frog_leg") else bool(rng.random() < 0.5)
        across = rng.uniform(0.05, 0.11)
        down = rng.uniform(0.08, 0.5) if site.name != "C" else rng.uniform(0.55, 0.9)
        place = (int((across if left else 1 - across) * width), int(down * height))
        text = {
            "A": "",
            "B": plan.part.upper() if plan.view == "other" else plan.view.replace("_", " ").upper(),
            "C": "RTC",
        }[site.name]
        if portable:
            text = f"{text} PORTABLE".strip()
        return Border(site, letter, spacing, corners, place, float(rng.normal(0, 9)), text, collimated)

    def field(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """The collimated field on a raster of 8 x 8 pixels each."""
        mask = np.zeros(shape, np.uint8)
        cv2.fillConvexPoly(mask, fixed(self.corners / 8), 1, cv2.LINE_8, 4)
        return mask > 0

    def lead(self, attenuation: Map) -> None:
        """Lead letters and collimator blades in the beam."""
        if self.collimated:
            field = np.zeros(attenuation.shape, np.uint8)
            cv2.fillConvexPoly(field, fixed(self.corners), 255, cv2.LINE_AA, 4)
            blade = cv2.blur(255 - field, (5, 5))
            attenuation += blade * np.float32(6.0 / 255)
        if self.site.marker == "round":
            return
        size = 15.0 / self.spacing
        cell = int(size * 2.4) | 1
        stamp = np.zeros((cell, cell), np.uint8)
        thick = max(1, round(2.6 / self.spacing))
        scale = size / 22
        (w, h), _ = cv2.getTextSize(self.letter, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        cv2.putText(
            stamp,
            self.letter,
            ((cell - w) // 2, (cell + h) // 2),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            255,
            thick,
            cv2.LINE_AA,
        )
        if self.site.marker == "plate":
            edge = max(1, round(0.9 / self.spacing))
            inset = cell // 2 - int(size * 0.75)
            cv2.rectangle(stamp, (inset, inset), (cell - inset, cell - inset), 200, edge, cv2.LINE_AA)
            for ball in range(3):
                at = (cell // 2 + int((ball - 1) * size * 0.3), cell - inset - int(size * 0.16))
                cv2.circle(stamp, at, max(1, round(1.1 / self.spacing)), 255, -1, cv2.LINE_AA)
        turn = cv2.getRotationMatrix2D((cell / 2, cell / 2), self.tilt, 1.0)
        tilted = np.asarray(cv2.warpAffine(stamp, turn, (cell, cell)), np.float32)
        self._add(attenuation, tilted * np.float32(3.2 / 255))

    def annotate(self, picture: Map) -> None:
        """Text that the console burns in, and its round letter (site B)."""
        if self.collimated and self.site.name == "A":  # an electronic shutter over what the blades hid
            mask = np.zeros(picture.shape, np.uint8)
            middle = self.corners.mean(0)
            cv2.fillConvexPoly(mask, fixed(middle + (self.corners - middle) * 0.994), 1, cv2.LINE_8, 4)
            picture *= mask
        thick = max(1, round(0.5 / self.spacing))
        scale = 4.2 / self.spacing / 22
        if self.site.marker == "round":
            size = 11.0 / self.spacing
            cell = int(size * 2.4) | 1
            stamp = np.zeros((cell, cell), np.uint8)
            cv2.circle(stamp, (cell // 2, cell // 2), int(size), 255, max(1, round(0.8 / self.spacing)), cv2.LINE_AA)
            bold = max(1, round(1.6 / self.spacing))
            (w, h), _ = cv2.getTextSize(self.letter, cv2.FONT_HERSHEY_DUPLEX, size / 22, bold)
            cv2.putText(
                stamp,
                self.letter,
                ((cell - w) // 2, (cell + h) // 2),
                cv2.FONT_HERSHEY_DUPLEX,
                size / 22,
                255,
                bold,
                cv2.LINE_AA,
            )
            self._add(picture, stamp.astype(np.float32) * np.float32(1 / 255))
        if self.text:
            layer = np.zeros((int(12 / self.spacing) + 4, picture.shape[1]), np.uint8)
            cv2.putText(
                layer,
                self.text,
                (int(8 / self.spacing), int(8 / self.spacing)),
                cv2.FONT_HERSHEY_SIMPLEX,
                scale,
                255,
                thick,
                cv2.LINE_AA,
            )
            top = 0 if self.site.name == "B" else picture.shape[0] - layer.shape[0]
            strip = picture[top : top + layer.shape[0]]
            np.maximum(strip, layer * np.float32(1 / 255), out=strip)
        np.clip(picture, 0, 1, out=picture)

    def _add(self, target: Map, stamp: Map) -> None:
        cell = stamp.shape[0]
        x0, y0 = self.place[0] - cell // 2, self.place[1] - cell // 2
        top, left = max(0, -y0), max(0, -x0)
        bottom, right = min(cell, target.shape[0] - y0), min(cell, target.shape[1] - x0)
        if bottom > top and right > left:
            target[y0 + top : y0 + bottom, x0 + left : x0 + right] += stamp[top:bottom, left:right]
