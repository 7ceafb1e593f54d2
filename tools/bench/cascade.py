"""The whole cascade from DICOM files: what it adds to decoding and networks, and what a second worker brings."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray

from bench.measure import Options, Row, Section, Target, duration, ratio_row
from bench.models import bundle, films, weights
from domainseg.bundle.drawn import Drawn
from domainseg.bundle.load import Bundle, load_bundle, load_stages
from domainseg.bundle.workers import Recipe, predict_films
from domainseg.cascade import cascade
from domainseg.imaging import read_film

OVERHEAD, WORKERS = Target(1.25, most=True), Target(1.7)
WORKED = 60  # films of the comparison of workers
PARTS = ("reading", "preprocessing", "networks")


class Network:
    """A stage's network that keeps the pictures that it was given and the seconds that it took."""

    def __init__(self, run: Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]) -> None:
        self.run = run
        self.pictures: list[NDArray[np.float32]] = []
        self.seconds = 0.0

    def __call__(self, pictures: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """The network's answer."""
        self.pictures.append(pictures)
        start = time.perf_counter()
        answer = self.run(pictures)
        self.seconds += time.perf_counter() - start
        return answer


def measure(options: Options) -> Section:
    """Rows for the overhead, the share of each part, and two workers against one."""
    cv2.setNumThreads(1)
    folder, verified = bundle(options)
    paths = films(options)
    about = (
        f"{len(paths)} simulated DICOM films from reading to rows, weights {weights(options)}, ONNX Runtime fp32, one "
        "thread a process. Bare: pydicom's pixel_array and the networks alone, on the same films and the same inputs."
    )
    rows = overhead(load_bundle(folder, threads=1), paths, options.rounds)
    if (os.cpu_count() or 1) > 1:
        load = partial(load_stages, folder, verified.sha256, "onnxruntime", "fp32", 1)
        recipe = Recipe(load=load, known=None, envelope=None, drawn=Drawn(), threads=1)
        rows.append(two_workers(recipe, [(path.name, path) for path in paths[:WORKED]], short=options.short))
    return Section(about, rows)


def overhead(loaded: Bundle, paths: list[Path], rounds: int) -> list[Row]:
    """The cascade's time against bare decoding and networks, film by film in turn; a round is a part of the films."""
    networks = [Network(stage.network) for stage in loaded.stages]
    stages = [replace(stage, network=network) for stage, network in zip(loaded.stages, networks, strict=True)]
    timed = replace(loaded, stages=stages)
    timed.predict(paths[0])
    chunks = [paths[k::rounds] for k in range(min(rounds, len(paths)))]
    found: dict[str, list[float]] = {}
    for chunk in chunks:
        seconds = dict.fromkeys(["cascade", "reading", "preprocessing", "networks", "decoding", "bare networks"], 0.0)
        for path in chunk:
            for name, value in one_film(timed, networks, path).items():
                seconds[name] += value
        for name, value in seconds.items():
            found.setdefault(name, []).append(value / len(chunk))
    bare = [a + b for a, b in zip(found["decoding"], found["bare networks"], strict=True)]
    total = found["cascade"]
    note = f"{duration(statistics.median(total))} a film"
    rows = [ratio_row("whole cascade", "bare decoding + networks", total, bare, OVERHEAD, note)]
    for part in PARTS:
        note = duration(statistics.median(found[part]))
        rows.append(ratio_row(f"of it {part}", "whole cascade", found[part], total, note=note))
    note = duration(statistics.median(found["decoding"]))
    rows.append(ratio_row("reading a film", "bare decoding", found["reading"], found["decoding"], note=f"bare: {note}"))
    return rows


def one_film(loaded: Bundle, networks: list[Network], path: Path) -> dict[str, float]:
    """Seconds of the cascade and its parts on one film, then of bare decoding and the bare networks."""
    preprocess, seconds = cascade.preprocess, {"preprocessing": 0.0}

    def clocked(*arguments: Any) -> Any:
        start = time.perf_counter()
        answer = preprocess(*arguments)
        seconds["preprocessing"] += time.perf_counter() - start
        return answer

    for network in networks:
        network.pictures, network.seconds = [], 0.0
    cascade.preprocess = clocked
    try:
        start = time.perf_counter()
        film = read_film(path)
        seconds["reading"] = time.perf_counter() - start
        loaded.predict(film, path.name)
        seconds["cascade"] = time.perf_counter() - start
    finally:
        cascade.preprocess = preprocess
    seconds["networks"] = sum(network.seconds for network in networks)
    start = time.perf_counter()
    pydicom.dcmread(path).pixel_array  # noqa: B018
    seconds["decoding"] = time.perf_counter() - start
    start = time.perf_counter()
    for network in networks:
        for pictures in network.pictures:
            network.run(pictures)
    seconds["bare networks"] = time.perf_counter() - start
    return seconds


def two_workers(recipe: Recipe, images: list[tuple[str, Path]], *, short: bool) -> Row:
    """Films a second of two worker processes against one, both without their start.

    No target in the short form: a second core that others use halves it.
    """
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for k in range(1 if short else 2):
        for workers in ((1, 2), (2, 1))[k % 2]:
            times = [time.perf_counter() for _ in predict_films(recipe, images, workers)]
            # From the moment when each worker has done its first film.
            seconds[workers].append((times[-1] - times[workers - 1]) / (len(images) - workers))
    note = f"{1 / statistics.median(seconds[2]):.2f} films a second"
    return ratio_row("two workers: speed", "one worker", seconds[1], seconds[2], None if short else WORKERS, note)
