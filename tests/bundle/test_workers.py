"""Worker processes: one that dies, films that are too large, stages that cannot be loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from domainseg.bundle.drawn import Drawn
from domainseg.bundle.inputs import read_input
from domainseg.bundle.model import bundle_model
from domainseg.bundle.schema import BundleError
from domainseg.bundle.workers import Recipe, predict_films, share_memory
from domainseg.cascade.reads import FILMS, VOLUMES, Reading

# Stages that die at the film of a certain width, natively; with a flag file only once.
STAGES = """
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from domainseg.bundle.load import load_bundle
from domainseg.imaging import reading

@dataclass
class Deadly:
    decision: Any
    flag: str
    def decide(self, case, sample, outputs, frozen):
        if case.film.shape[0] == 100 and not (self.flag and Path(self.flag).exists()):
            if self.flag:
                Path(self.flag).touch()
            os.abort()
        return self.decision.decide(case, sample, outputs, frozen)
    def __getattr__(self, name):
        return getattr(self.decision, name)

def load(bundle, flag):
    from dataclasses import replace
    first, *others = load_bundle(bundle, threads=1).stages
    return [replace(first, decision=Deadly(first.decision, flag)), *others]

def die(bundle):
    os._exit(7)

def fail(bundle):
    from domainseg.bundle.schema import BundleError
    raise BundleError("weights are gone")

def undrawn(bundle):
    from dataclasses import replace
    *others, last = load_bundle(bundle, threads=1).stages
    class Nowhere:
        target = last.decision.target
        def decide(self, *of):
            return [case.with_values(head_x=float("nan")) for case in last.decision.decide(*of)]
    return [*others, replace(last, decision=Nowhere())]

def odd(bundle):
    from dataclasses import replace
    first, *others = load_bundle(bundle, threads=1).stages
    class Odd:
        target = first.decision.target
        def decide(self, case, *_):
            raise KeyError("name of somebody")
    return [replace(first, decision=Odd()), *others]
"""

MakeRecipe = Callable[..., Recipe]
Named = list[tuple[str, Path]]


@pytest.fixture
def recipe(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRecipe:
    """Recipe of a function of the module above, over the six films."""
    (tmp_path / "deadly_stages.py").write_text(STAGES)
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, *argv: str) -> Recipe:
        import deadly_stages

        load = partial(getattr(deadly_stages, name), str(bundle), *argv)
        return Recipe(load, known=None, envelope=None, drawn=Drawn(), threads=1)

    yield make  # type: ignore[misc]
    sys.modules.pop("deadly_stages", None)


@pytest.fixture
def named(films: Path) -> Named:
    """(image, path) of the films and of the file that is none."""
    manifest = read_input(films)
    return [(image, manifest.path(image)) for image in manifest.images["image"]]


def outcome(recipe: Recipe, named: Named, workers: int, **limits: Any) -> dict[str, str]:
    return {done.image: done.problem for done in predict_films(recipe, named, workers, **limits)}


READABLE = {"film1.png", "film3.png", "film5.png", "ward/film0.dcm", "ward/film2.dcm", "ward/film4.dcm"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_film_that_kills_its_process_twice_is_excluded_and_no_other(
    recipe: MakeRecipe, named: Named, workers: int
) -> None:
    found = {done.image: done for done in predict_films(recipe("load", ""), named, workers)}
    assert set(found) == READABLE | {"broken.dcm"}
    assert {image: done.problem for image, done in found.items() if done.problem} == {
        "broken.dcm": "unreadable",
        "ward/film2.dcm": "crashed",
    }
    (row,) = found["ward/film2.dcm"].rows
    assert (row["excluded_by"], row["exclusion_reason"]) == ("read", "crashed")
    assert all(len(found[image].rows) == 2 for image in READABLE - {"ward/film2.dcm"})


def test_a_film_that_kills_its_process_once_is_read_alone(recipe: MakeRecipe, named: Named, tmp_path: Path) -> None:
    found = outcome(recipe("load", str(tmp_path / "flag")), named, 2)
    assert {image for image, problem in found.items() if not problem} == READABLE


def test_stages_that_cannot_be_loaded_end_it(recipe: MakeRecipe, named: Named) -> None:
    with pytest.raises(BundleError, match=r"ended while it loaded the stages \(exit code 7\)"):
        outcome(recipe("die"), named, 2)
    with pytest.raises(BundleError, match="weights are gone"):
        outcome(recipe("fail"), named, 1)


def test_an_unforeseen_error_costs_its_film_and_tells_no_value(recipe: MakeRecipe, named: Named) -> None:
    (done,) = predict_films(recipe("odd"), [film for film in named if film[0] == "film1.png"], 1)
    assert (done.problem, done.reason) == ("failed", "failed (KeyError)")


def test_a_picture_that_cannot_be_drawn_costs_no_film_its_rows(
    recipe: MakeRecipe, named: Named, tmp_path: Path
) -> None:
    made = replace(recipe("undrawn"), drawn=Drawn(overlays=tmp_path / "overlays"))
    (done,) = predict_films(made, [film for film in named if film[0] == "film1.png"], 1)
    assert (done.problem, done.note, len(done.rows)) == ("", "no overlay (ValueError)", 2)
    (tmp_path / "file").touch()  # nowhere to draw to: told at once, and no film is blamed
    with pytest.raises(BundleError, match="file"):
        outcome(replace(recipe("load", "never"), drawn=Drawn(overlays=tmp_path / "file")), named[1:2], 1)


@pytest.mark.parametrize("reading", [FILMS, VOLUMES])
def test_memory_is_shared_among_as_many_workers_as_fit(reading: Reading) -> None:
    each = reading.bytes_a_pixel
    ordinary = reading.ordinary * each
    worker = 400_000_000
    for fit in (1, 2, 3):
        memory = fit * (worker + ordinary) + 1000
        limits = share_memory(8, memory, worker, reading)
        assert limits.workers == fit
        assert limits.together is not None
        assert limits.together >= reading.ordinary
        assert fit * (worker + limits.together * each) <= memory
    # The largest film is the same whatever the number of workers.
    assert {share_memory(n, 10e9, worker, reading).alone for n in (1, 2, 5)} == {int((10e9 - worker) // each)}
    with pytest.raises(BundleError, match=r"memory_gb=0.1: one worker takes 0.40 GB"):
        share_memory(1, 1e8, worker, reading)


def test_a_film_that_does_not_fit_is_excluded_by_reading(
    bundle: Path, named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Films here have 8,000 to 13,000 pixels: one that fits alone is read alone, a larger one never."""
    from domainseg.bundle import workers

    limits = workers.Limits(2, together=9_500, alone=11_500)
    monkeypatch.setattr(workers, "share_memory", lambda *_: limits)
    monkeypatch.setattr(workers._Pool, "measure", lambda _: 0)
    cfg = {"bundle": str(bundle), "backend": "onnxruntime", "precision": "fp32", "threads": 1, "workers": 2}
    model = bundle_model(cfg)
    made = Recipe(model.load, known=None, envelope=None, drawn=Drawn(), threads=1)
    found = outcome(made, named, 2, memory_gb=1.0)
    assert {image for image, problem in found.items() if problem == "exceeds_memory"} == {"ward/film4.dcm", "film5.png"}
    assert {image for image, problem in found.items() if not problem} == READABLE - {"ward/film4.dcm", "film5.png"}
    assert found["broken.dcm"] == "unreadable"


def test_what_a_worker_takes_is_measured(recipe: MakeRecipe, named: Named) -> None:
    """Too little for one is told with what is needed; enough for one reads all."""
    with pytest.raises(BundleError, match=r"memory_gb=0.01: one worker takes 0\.\d\d GB"):
        outcome(recipe("load", ""), named, 1, memory_gb=0.01)
