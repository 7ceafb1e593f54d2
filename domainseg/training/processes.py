"""The processes of one training run: started, joined in one process group, and ended with it.

Lightning's own launcher runs sys.argv again in every further process. In a multirun that is the whole sweep, and under
a sweeper that proposes settings every process trains its own: nobody notices. Here the first process starts the others
on the very configuration that it has itself (see domainseg/training/__main__.py), through a pipe that also tells them
when it is gone. Nothing is put into the environment of the first process, so the next job of a sweep starts clean.
Where srun or torchrun has started the processes, their places are taken from the environment, and all of them must have
come to the same configuration.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist

from domainseg.files import DomainsegError, hash_json
from domainseg.tasks import ranks
from domainseg.tasks.loggers import check_loggers
from domainseg.training.stages import RunError

log = logging.getLogger(__name__)

CONNECT = timedelta(minutes=5)  # for all processes to meet
GRACE = 20.0  # seconds in which the first process may notice by itself that another one has failed
SAID = "log: "  # begins a line of a further process that belongs into the log


@dataclass(frozen=True)
class Place:
    """Where a process stands: its number of ``size``, its number on its machine, and where the first one listens."""

    rank: int
    local_rank: int
    size: int
    address: str
    port: int


@contextmanager
def together(cfg: Mapping[str, Any], output: Path) -> Iterator[None]:
    """A block that trainer.devices processes run together; in a run of one process, just the block.

    An error in any process ends all of them and is raised here. Raises RunError for settings that do not fit.
    """
    place = place_from(os.environ)
    devices, nodes = devices_of(cfg["trainer"]), int(cfg["trainer"]["nodes"])
    check_settings(cfg, devices * nodes)
    if place is not None:
        if place.size != devices * nodes:
            raise RunError(
                f"trainer.devices={devices} on trainer.nodes={nodes}: {place.size} processes were started; "
                "one for each device of each node is needed"
            )
        torchrun = "TORCHELASTIC_USE_AGENT_STORE" in os.environ
        with member(place, cfg["trainer"], None if torchrun else listen(place)):
            check_same(cfg)
            yield
    elif nodes > 1:
        raise RunError(f"trainer.nodes={nodes}: start a process for each device of each node with srun or torchrun")
    elif devices == 1:
        yield
    else:
        store = listen(Place(0, 0, devices, "127.0.0.1", 0))
        places = [Place(rank, rank, devices, "127.0.0.1", store.port) for rank in range(devices)]
        others = Others(cfg, output, places[1:])
        with others.watched(), member(places[0], cfg["trainer"], store):
            yield


@contextmanager
def member(place: Place, trainer: Mapping[str, Any], store: Any) -> Iterator[None]:
    """Join the process group at ``place``; it is left at the end of the block, whatever happens in it.

    store: see ``listen``; None where torchrun listens itself.
    """
    gpu = trainer["accelerator"] == "gpu"
    if gpu:
        torch.cuda.set_device(place.local_rank)
    backend = "nccl" if gpu else "gloo"
    if store is None:
        dist.init_process_group(backend, timeout=ranks.TIMEOUT)
    else:
        dist.init_process_group(backend, rank=place.rank, world_size=place.size, store=store, timeout=ranks.TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def listen(place: Place) -> Any:
    """The table of names and addresses through which processes find each other; the first process holds it.

    Port 0 takes one that is free.
    """
    return dist.TCPStore(  # type: ignore[attr-defined]
        place.address, place.port, place.size, place.rank == 0, wait_for_workers=False, timeout=CONNECT
    )


def place_from(environment: Mapping[str, str]) -> Place | None:
    """The place that torchrun or srun gave this process; None where it was started alone."""
    torchrun = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if all(name in environment for name in torchrun):
        rank, local, size, address, port = (environment[name] for name in torchrun)
    elif "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        rank, local, size = (environment[f"SLURM_{name}"] for name in ("PROCID", "LOCALID", "STEP_NUM_TASKS"))
        address = environment.get("MASTER_ADDR") or first_host(environment.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        port = environment.get("MASTER_PORT") or str(20000 + int(environment.get("SLURM_JOB_ID", "0")) % 10000)
    else:
        return None
    return Place(int(rank), int(local), int(size), address, int(port)) if int(size) > 1 else None


def first_host(hosts: str) -> str:
    """The first of SLURM's hosts: gpu[03-05,9],login -> gpu03."""
    name, bracket, rest = hosts.partition("[")
    if not bracket or "," in name:
        return name.split(",")[0]
    return name + rest.partition("]")[0].split(",")[0].split("-")[0]


def devices_of(trainer: Mapping[str, Any]) -> int:
    """Processes on this machine: trainer.devices, where null means every graphics card."""
    gpu = trainer["accelerator"] == "gpu"
    there = torch.cuda.device_count() if gpu else 0
    devices = trainer["devices"] if trainer["devices"] is not None else max(1, there)
    if int(devices) < 1 or (gpu and int(devices) > there):
        raise RunError(f"trainer.devices={devices}: this machine has {there} graphics cards that torch can use")
    return int(devices)


def threads_of(trainer: Mapping[str, Any]) -> int | None:
    """Threads of torch in each process: trainer.threads, or its share of the cores; None leaves torch's choice."""
    if trainer["threads"]:
        return int(trainer["threads"])
    devices = devices_of(trainer)
    return None if devices == 1 else max(1, len(os.sched_getaffinity(0)) // devices)


def check_settings(cfg: Mapping[str, Any], size: int) -> None:
    """Raise RunError for settings that ``size`` processes cannot share, and what ``check_loggers`` raises."""
    check_loggers(cfg["trainer"]["loggers"])
    if cfg["trainer"]["sync_batchnorm"] and cfg["trainer"]["accelerator"] != "gpu":
        raise RunError("trainer.sync_batchnorm=true: torch has it for graphics cards only; use trainer=ddp")
    for name, batch in _batch_sizes({"stage": cfg["stage"], "baselines": cfg["baselines"]}):
        if batch % size:
            raise RunError(f"{name}={batch}: is the batch of all {size} processes together and does not divide by them")


def _batch_sizes(node: Any, path: str = "") -> Iterator[tuple[str, int]]:
    if not isinstance(node, Mapping) or node.get("steps", 1) == 0:
        return
    for key, value in node.items():
        name = f"{path}.{key}".lstrip(".")
        if key == "batch_size":
            yield name, int(value)
        yield from _batch_sizes(value, name)


def fingerprints(cfg: Mapping[str, Any]) -> list[str]:
    """A hash of the configuration that each process has, in their order."""
    return ranks.gather(hash_json({key: value for key, value in cfg.items() if key != "output"}))


def check_same(cfg: Mapping[str, Any]) -> None:
    """Raise RunError unless every process has the same configuration."""
    if len(set(fingerprints(cfg))) > 1:
        raise RunError("the processes of this run do not have the same configuration; start all with the same command")


class Others:
    """The further processes of a run, and what became of them."""

    def __init__(self, cfg: Mapping[str, Any], output: Path, places: Sequence[Place]) -> None:
        self._failure: str | None = None
        self._failed, self._done = threading.Event(), threading.Event()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        for place in places:
            process = subprocess.Popen(
                [sys.executable, "-m", "domainseg.training"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # an interrupt from the keyboard reaches the first process, which ends them
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps([dict(cfg), str(output), asdict(place)]).encode() + b"\n")
            process.stdin.flush()
            thread = threading.Thread(target=self._watch, args=(process, place.rank), daemon=True)
            thread.start()
            self._processes.append(process)
            self._threads.append(thread)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End the others with the block; their failure becomes the block's."""
        try:
            yield
            for process in self._processes:
                process.wait(ranks.TIMEOUT.total_seconds())
            self._raise_failure()
        except DomainsegError:
            raise
        except Exception as error:
            # Most likely an exchange that broke off because another process failed; it may still be telling why.
            if isinstance(error, RuntimeError) and self._failed.wait(GRACE):
                self._raise_failure(error)
            raise
        finally:
            self._done.set()
            for process in self._processes:
                process.kill()
                process.wait()
            for thread in self._threads:
                thread.join()
            for process in self._processes:
                for stream in (process.stdin, process.stderr):
                    if stream is not None:
                        stream.close()

    def _raise_failure(self, error: Exception | None = None) -> None:
        if self._failure is not None:
            raise RunError(self._failure) from error

    def _watch(self, process: subprocess.Popen[bytes], rank: int) -> None:
        """Log what a process says, and see to it that its failure is not waited for."""
        assert process.stderr is not None
        tail = _follow(process.stderr, rank)
        if process.wait() == 0 or self._done.is_set():
            return
        last = tail[-1] if tail else f"it ended with code {process.returncode} and said nothing"
        if not last.startswith("error: "):
            log.error("process %d failed:\n%s", rank, "\n".join(tail))
        if self._failure is None:
            self._failure = f"process {rank} of the run failed: {last.removeprefix('error: ')}"
        self._failed.set()
        if not self._done.wait(GRACE):  # stuck in an exchange that will never end
            print(f"error: {self._failure}", file=sys.stderr, flush=True)
            os._exit(1)


def _follow(stream: IO[bytes], rank: int) -> Sequence[str]:
    tail: deque[str] = deque(maxlen=60)
    for line in stream:
        text = line.decode(errors="replace").rstrip()
        if text.startswith(SAID):
            log.warning("process %d: %s", rank, text.removeprefix(SAID))
        elif text:
            tail.append(text)
    return tail
