"""What surrounds a chest: collimation, lead letters, burnt-in text, and the tubes and leads of portable films."""

from __future__ import annotations

import numpy as np

from domainseg.phantom.border import Border
from domainseg.phantom.canvas import rotation
from domainseg.phantom.chest.cohort import ChestPlan
from domainseg.phantom.chest.thorax import Chest
from domainseg.phantom.detector import Site


def border(
    site: Site, plan: ChestPlan, shape: tuple[int, int], spacing: float, rng: np.random.Generator, *, portable: bool
) -> Border:
    """Collimated field, marker and text as the site has them. ``portable``: whether they may show that."""
    height, width = shape
    collimated = bool(rng.random() < {"A": 0.3, "B": 0.5, "C": 0.7}[site.name])
    margin = rng.uniform(0.0, 0.035, 4) if collimated else np.full(4, -0.02)
    box = np.array([[margin[0], margin[1]], [1 - margin[2], margin[1]], [1 - margin[2], 1 - margin[3]],
                    [margin[0], 1 - margin[3]]]) * (width, height)  # fmt: skip
    lean = float(rng.normal(0, 0.4)) + (float(rng.normal(0, 2.0)) if portable else 0.0)
    middle = np.array([width / 2, height / 2])
    letter = str(rng.choice(["R", "L"], p=[0.35, 0.65] if site.name != "B" else [0.9, 0.1]))
    across = rng.uniform(0.06, 0.10)
    low = (site.name == "C") != portable  # portable films have their letter at the other end, with a P
    down = rng.uniform(0.80, 0.93) if low else rng.uniform(0.05, 0.12)
    place = (int((across if letter == "R" else 1 - across) * width), int(down * height))
    text = {"A": "", "B": f"CHEST {plan.view if portable or not plan.portable else 'PA'}", "C": "RTC"}[site.name]
    if portable:
        text = f"{text} PORTABLE SUPINE".strip()
    corners = (box - middle) @ rotation(lean).T + middle
    shown = f"{letter}P" if portable else letter
    return Border(site, shown, spacing, corners, place, float(rng.normal(0, 8)), text, collimated)


def devices(chest: Chest, rng: np.random.Generator) -> None:
    """Leads with their electrodes, and often a tracheal tube, a central line, a gastric tube."""
    for _ in range(int(rng.integers(2, 5))):
        spot = np.array([rng.choice([-1, 1]) * rng.uniform(35, 120), rng.uniform(-90, 80)])
        end = np.array([rng.uniform(-90, 90), rng.choice([-175.0, 190.0])])
        way = spot + (end - spot) * np.array([[0], [0.35], [0.7], [1]]) + rng.normal(0, 9, (4, 2))
        way[0] = spot
        chest.line(chest.metal, way, 1.4, 0.55, 0.2)
        chest.metal += 0.9 * (np.hypot(chest.x - spot[0], chest.y - spot[1]) < 4.5)
        chest.soft += 2.0 * (np.hypot(chest.x - spot[0], chest.y - spot[1]) < 13)
    if rng.random() < 0.45:
        for gap in (-4.0, 4.0):
            chest.line(chest.soft, [(gap, -190), (gap + 1, -120), (gap, -66)], 1.2, 7.0, 0.3)
        chest.line(chest.metal, [(4.6, -190), (5.4, -120), (4.6, -68)], 0.8, 0.35, 0.1)
    if rng.random() < 0.5:
        side = float(rng.choice([-1, 1]))
        course = [(side * 118, -128), (side * 60, -112), (side * 18, -92), (-18, -60), (-20, -16), (-19, 6)]
        chest.line(chest.soft, course, 2.2, 9.0, 0.3)
        chest.line(chest.metal, course, 0.8, 0.25, 0.1)
    if rng.random() < 0.4:
        chest.line(chest.soft, [(2, -190), (-2, -90), (3, 20), (14, 96), (48, 134)], 3.0, 7.0, 0.3)
        chest.line(chest.metal, [(2, -190), (-2, -90), (3, 20), (14, 96), (48, 134)], 0.9, 0.3, 0.1)
