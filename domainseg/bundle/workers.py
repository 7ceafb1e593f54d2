"""Films or volumes through processes: each loads the stages and takes one at a time; none takes the others with it."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from domainseg.bundle.drawn import Drawn
from domainseg.bundle.load import flags
from domainseg.bundle.schema import BundleError
from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.operations import picture_shape
from domainseg.cascade.reads import FILMS, Reading
from domainseg.cascade.stages import Stage
from domainseg.files import DomainsegError
from domainseg.imaging import FilmTooLargeError, ImageReadError

if TYPE_CHECKING:
    from domainseg.data.manifest import Manifest

CRASHED = "crashed"


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to know; it travels to another process, so ``load`` is a function of a module.

    load: makes the stages. known: the manifest when it holds truth about the films (without it a worker is spared
    pandas, half of its start). envelope: of the bundle, None for a run folder. drawn: the pictures and masks to write.
    threads: of OpenCV. reading: what the stages read. max_pixels: of a film, or voxels of a volume, None for no limit.
    warm: run each network once before the first film.
    """

    load: Callable[[], Sequence[Stage]]
    known: Manifest | None
    envelope: Mapping[str, Any] | None
    drawn: Drawn
    threads: int
    reading: Reading = FILMS
    max_pixels: int | None = None
    warm: bool = False


@dataclass(frozen=True)
class Done:
    """What became of a film or volume: its rows, the kind and reason of the error when it could not be read, a note."""

    image: str
    rows: list[dict[str, Any]]
    problem: str = ""
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Limits:
    """How many workers fit, and how many pixels or voxels one may have beside others and alone (None: any number)."""

    workers: int
    together: int | None = None
    alone: int | None = None


def predict_films(
    recipe: Recipe,
    films: Sequence[tuple[str, Path]],
    workers: int,
    memory_gb: float | None = None,
    first: Worker | None = None,
) -> Iterator[Done]:
    """The rows of films or volumes, given as (image, path), in the order in which they are done.

    A film at which a process dies (a codec or a runtime can crash natively) is tried once more alone, and if it dies
    again is a row excluded_by=read with the reason crashed. A film too large beside others is read alone; one that
    does not fit ``memory_gb`` (10^9 bytes, of all workers together) at all is a row excluded_by=read with the reason
    exceeds_memory. ``first`` is a worker that was started before. Raises BundleError when the stages cannot be loaded,
    or not within the memory.
    """
    pool = _Pool(recipe, first)
    try:
        limits = Limits(workers)
        if memory_gb is not None:
            limits = share_memory(workers, memory_gb * 1e9, pool.measure(), recipe.reading)
        alone: list[str] = []
        for done in pool.run(films, limits.workers, limits.together):
            if done.problem in (CRASHED, FilmTooLargeError.kind):
                alone.append(done.image)
            else:
                yield done
        pool.stop()
        paths = dict(films)
        yield from pool.run([(image, paths[image]) for image in alone], 1, limits.alone)
    finally:
        pool.stop()


def share_memory(workers: int, memory: float, worker: float, reading: Reading = FILMS) -> Limits:
    """Limits for ``memory`` bytes where a worker takes ``worker`` bytes before it has a film.

    The largest film depends on ``memory`` only, so that the table does not depend on the number of workers. Raises
    BundleError when one worker with an ordinary film does not fit.
    """
    each = reading.bytes_a_pixel
    ordinary = reading.ordinary * each
    fit = int(memory // (worker + ordinary))
    if fit < 1:
        raise BundleError(
            f"memory_gb={memory / 1e9:g}: one worker takes {worker / 1e9:.2f} GB and an ordinary "
            f"{reading.name} {ordinary / 1e9:.2f} GB more; give at least {(worker + ordinary) / 1e9 + 0.01:.2f}"
        )
    used = min(workers, fit)
    return Limits(used, int((memory / used - worker) // each), int((memory - worker) // each))


class Worker:
    """A process, the pipe to it, and the film that it has at hand; it imports what it needs until ``begin``."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(end,), daemon=True)
        self.process.start()
        end.close()
        self.film: tuple[str, Path] | None = None
        self.loading = self.ready = False

    def load(self, load: Callable[[], Sequence[Stage]]) -> None:
        """Let it make the stages."""
        self.loading = True
        with suppress(OSError):  # it died: its answer will say so
            self.pipe.send(load)

    def begin(self, recipe: Recipe) -> None:
        """Tell it what to do; it says when it is ready for films."""
        if not self.loading:
            self.load(recipe.load)
        with suppress(OSError):
            self.pipe.send(recipe)

    def answer(self) -> Any:
        """What it says: the peak of its memory in bytes first, then a Done for each film; None when it died at one.

        Raises what it raised, and BundleError when it died before it was ready.
        """
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            if self.ready:
                return None
            raise BundleError(
                f"a worker process ended while it loaded the stages (exit code {self.process.exitcode}): "
                "too little memory, or a damaged installation"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        self.ready = True
        return answer

    def give(self, film: tuple[str, Path]) -> None:
        self.film = film
        with suppress(OSError):  # it died between two films: its answer will say so
            self.pipe.send(film)

    def stop(self) -> None:
        self.pipe.close()  # a process that waits ends at the end of its pipe
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


class _Pool:
    """Workers of one recipe."""

    def __init__(self, recipe: Recipe, first: Worker | None) -> None:
        self._recipe = recipe
        self._first = first
        self._workers: list[Worker] = []

    def measure(self) -> int:
        """Bytes that a worker takes that has run each network once."""
        self._add(warm=True)
        taken: int = self._workers[0].answer()
        self.stop()
        return taken

    def run(self, films: Sequence[tuple[str, Path]], count: int, max_pixels: int | None) -> Iterator[Done]:
        queue = deque(films)
        while queue or any(worker.film is not None for worker in self._workers):
            busy = sum(worker.film is not None for worker in self._workers)
            while len(self._workers) < min(count, busy + len(queue)):
                self._add(max_pixels=max_pixels)
            for pipe in wait([worker.pipe for worker in self._workers]):
                worker = next(worker for worker in self._workers if worker.pipe is pipe)
                answer, film, worker.film = worker.answer(), worker.film, None
                if answer is None:
                    worker.stop()
                    self._workers.remove(worker)
                elif queue:
                    worker.give(queue.popleft())
                if film is not None:
                    yield _crashed(self._recipe, *film) if answer is None else answer

    def _add(self, **changed: Any) -> None:
        worker, self._first = self._first or Worker(), None
        self._workers.append(worker)
        worker.begin(replace(self._recipe, **changed))

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers.clear()


def _crashed(recipe: Recipe, image: str, path: Path) -> Done:
    recipe.drawn.clear(image)  # it may have died while it drew: what has no score has no mask
    return _unread(recipe, image, ImageReadError(path, "the process that read it died", CRASHED), _truth(recipe))


def _truth(recipe: Recipe) -> Any:
    return None if recipe.known is None else recipe.reading.truth(recipe.known)


def _unread(recipe: Recipe, image: str, error: ImageReadError, truth: Any) -> Done:
    return Done(image, recipe.reading.rows(image, error, [], truth), error.kind, error.reason)


# ---------------------------------------------------------------- in the worker


def _work(pipe: Connection) -> None:
    """The life of a worker: stages, a recipe, then a film for each name that comes, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent to handle
    import domainseg.imaging.radiographs  # noqa: F401, while the parent reads what there is to predict

    try:
        stages: Sequence[Stage] = pipe.recv()()
        recipe: Recipe = pipe.recv()
        cv2.setNumThreads(recipe.threads)
        predictor = _Predictor(recipe, stages)
        if recipe.warm:
            predictor.warm()
        pipe.send(peak_bytes())
        while True:
            pipe.send(predictor(*pipe.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except ModuleNotFoundError as error:
        pipe.send(ModuleNotFoundError(str(error), name=error.name))
    except (DomainsegError, OSError) as error:
        pipe.send(BundleError(str(error)))  # other errors need not survive the way through a pipe


class _Predictor:
    """One film after the other through the cascade of a recipe."""

    def __init__(self, recipe: Recipe, stages: Sequence[Stage]) -> None:
        self._recipe = recipe
        self._cascade = Cascade(stages)
        self._truth = _truth(recipe)

    def warm(self) -> None:
        """Run each network once, so that the process has taken the memory that they need."""
        for stage in self._cascade.stages:
            stage.network(np.zeros((1, *picture_shape(stage.preprocessing)), np.float32))

    def __call__(self, image: str, path: Path) -> Done:
        recipe, truth = self._recipe, self._truth
        try:
            film = recipe.reading.read(path, recipe.max_pixels)
            results = self._cascade.run(Case.of(image, film))
            rows = recipe.reading.rows(image, film, results, truth)
            if recipe.envelope is not None:
                outside = flags(film, recipe.envelope)
                rows = [{**row, "outside": outside} for row in rows]
        except ImageReadError as error:
            return _unread(recipe, image, error, truth)
        except MemoryError:
            return _unread(recipe, image, FilmTooLargeError(path, "the memory did not suffice"), truth)
        except DomainsegError:
            raise
        except Exception as error:  # whatever a strange film brings about costs that film only
            return _unread(recipe, image, ImageReadError(path, f"failed ({type(error).__name__})", "failed"), truth)
        if note := "; ".join(recipe.drawn.write(image, film, results)):
            rows = [{**row, "not_drawn": note} for row in rows]
        return Done(image, rows, note=note)


def peak_bytes() -> int:
    """The most memory that this process has had, in bytes.

    Linux counts in ru_maxrss what the parent had before the process became a program of its own; VmHWM does not.
    """
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
