"""Sweeps (`-m`): what their folder holds, how a stopped one goes on, and what a failing job does.

  DIR/sweep.yaml      what was swept, as typed; a sweep that goes on must be the same
  DIR/<n>/job.json    what became of job n: its settings, running, finished (and its value) or failed (and why)

A finished job is never run again: its value is handed to the sweeper, so that a sweeper that proposes settings after
what it has seen proposes the same ones again. A job that fails is told in the log, the others go on.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainseg.files import read_json, write_bytes, write_json
from domainseg.overrides import UsageError, compose, parse, quoted, typed_key

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

log = logging.getLogger(__name__)

SWEEP = "sweep.yaml"
JOB = "job.json"
FREE = ("trainer", "resume", "output", "hydra")  # may differ when a sweep goes on
BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class Sweep:
    """A sweep that begins or goes on.

    arguments: those of its jobs, without `output`. swept: the keys that were typed with several values.
    """

    folder: Path
    arguments: Sequence[str]
    swept: Sequence[str]


def is_sweep(arguments: Iterable[str]) -> bool:
    """Whether Hydra is asked for a multirun."""
    return any(argument in ("-m", "--multirun") for argument in arguments)


def begin(config_name: str, arguments: Sequence[str], folders: Sequence[Path]) -> tuple[list[str], Sweep]:
    """The arguments for Hydra, and the sweep.

    With resume=true those that the sweep in `output` began with, and the trainer's and Hydra's settings as typed now.
    Raises UsageError when `output` holds another run, or when what was typed is not what the sweep began with.
    """
    typed, groups = parse(arguments, folders)
    resume = any(override.key_or_group == "resume" and override.value() is True for override in typed)
    output = next((override.value() for override in typed if override.key_or_group == "output"), None)
    if resume and output is None:
        raise UsageError("resume=true needs output=DIR, the folder of the sweep to go on with")
    if output is None:  # a date that every job, here or on another machine, reads the same
        output = compose(config_name, [*groups], folders).output
    folder = Path(str(output)).absolute()
    if any(override.key_or_group == "hydra/sweeper" and "optuna" in str(override.value()) for override in typed):
        _load_optuna()
    flags, settings = _divide([argument for argument in arguments if typed_key(argument) not in ("output", "resume")])
    if not resume:
        if (folder / SWEEP).is_file() or (folder / "config.yaml").is_file():
            raise UsageError(f"output={output}: holds a run. Add resume=true to go on with it, or name another folder")
    else:
        settings = _same(folder, settings, folders, groups)
    swept = [_key(override) for override in parse(settings, folders)[0] if override.is_sweep_override()]
    return [*flags, *settings, f"output={quoted(str(folder))}"], Sweep(folder, settings, swept)


def _load_optuna() -> None:
    """Import Optuna (2, that the sweeper asks for) without its warnings about libraries that are newer than itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("hydra_plugins.hydra_optuna_sweeper._impl")
    logging.getLogger("optuna").setLevel(logging.WARNING)


def _divide(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and overrides."""
    flags: list[str] = []
    settings: list[str] = []
    for position, argument in enumerate(arguments):
        after = position > 0 and arguments[position - 1] in ("--config-dir", "-cd", "--config-name", "-cn")
        (flags if argument.startswith("-") or after else settings).append(argument)
    return flags, settings


def _same(folder: Path, settings: list[str], folders: Sequence[Path], groups: Sequence[Override]) -> list[str]:
    """The arguments that the sweep began with, with what may change as typed now. Raises UsageError."""
    file = folder / SWEEP
    if not file.is_file():
        raise UsageError(f"output={folder}: no sweep to go on with, {file} does not exist")
    before = [str(argument) for argument in read_yaml(file)["arguments"]]
    then, now = _values(before, folders), _values(settings, folders)
    whole = any(override.key_or_group.partition(".")[0] not in FREE for override in groups)
    compared = {*now, *then} if whole else set(now)  # typed in full again, or just what comes to mind
    changed = sorted(key for key in compared if not _free(key) and now.get(key) != then.get(key))
    if changed:
        raise UsageError(f"resume=true: differs from {file}: {', '.join(changed)}. Only trainer settings may change")
    free = {typed_key(argument) for argument in settings if _free(typed_key(argument))}
    kept = [argument for argument in before if typed_key(argument) not in free]
    return [*kept, *(argument for argument in settings if typed_key(argument) in free)]


def _free(key: str) -> bool:
    return key.replace("/", ".").partition(".")[0] in FREE


def _values(arguments: Sequence[str], folders: Sequence[Path]) -> dict[str, str]:
    return {_key(override): str(override.input_line).partition("=")[2] for override in parse(arguments, folders)[0]}


def _key(override: Override) -> str:
    return str(override.get_key_element()).lstrip("+~")


# ---------------------------------------------------------------- jobs


def run_job(
    main: Callable[[dict[str, Any], Path], Any],
    settings: dict[str, Any],
    output: Path,
    sweep: Sweep,
    summary: Callable[[Path], None],
    told: Callable[[Exception], str | None],
) -> float | None:
    """Run, go on with or take up one job of a sweep; returns its value, None when it failed or has none.

    summary: refreshes what the sweep's folder says about its jobs. told: the line that an error is for people, None
    where it needs its traceback. Raises UsageError when the job's folder belongs to other settings.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    job = {"overrides": [str(override) for override in hydra.overrides.task], "status": "running", "value": None}
    if not (sweep.folder / SWEEP).is_file():
        write_yaml(sweep.folder / SWEEP, {"swept": list(sweep.swept), "arguments": list(sweep.arguments)})
    begun = (output / "config.yaml").is_file()
    if begun:
        settings = _go_on(settings, output)
        before: dict[str, Any] = read_json(output / JOB) if (output / JOB).is_file() else job
        adaptive = hydra.sweeper["_target_"] != BASIC
        # What a sweeper proposed after a failure rests on that failure.
        if before["status"] == "finished" or (before["status"] == "failed" and adaptive and _later(output)):
            log.info("job %s: %s before, its value is %s", output.name, before["status"], before["value"])
            summary(sweep.folder)
            return None if before["value"] is None else float(before["value"])
    else:
        write_yaml(output / "config.yaml", settings)
    write_json(output / JOB, job)
    summary(sweep.folder)
    try:
        value = float(main(settings, output))
    except Exception as error:
        line = told(error)
        log.error("job %s failed: %s", output.name, line or repr(error), exc_info=None if line else error)
        write_json(output / JOB, {**job, "status": "failed", "error": line or repr(error)})
        value = math.nan
    else:
        write_json(output / JOB, {**job, "status": "finished", "value": value})
    summary(sweep.folder)
    return None if math.isnan(value) else value  # Optuna stops at a NaN and goes on at None


def _go_on(settings: dict[str, Any], output: Path) -> dict[str, Any]:
    """The settings that a job began with and the trainer's of now. Raises UsageError when others have changed."""
    saved = read_yaml(output / "config.yaml")
    changed = sorted(key for key in _differing(settings, saved) if not _free(key))
    if changed:
        raise UsageError(f"{output}: this job began with other settings of {', '.join(changed)}; sweep in a new folder")
    return saved | {"trainer": settings["trainer"], "resume": True}


def _differing(one: Any, other: Any, key: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        names = {*one, *other}
        return [found for n in names for found in _differing(one.get(n), other.get(n), f"{key}.{n}".lstrip("."))]
    return [] if one == other else [key]


def _later(output: Path) -> bool:
    """Whether a job after this one has begun."""
    numbers = [int(file.parent.name) for file in output.parent.glob(f"*/{JOB}") if file.parent.name.isdigit()]
    return output.name.isdigit() and max(numbers, default=-1) > int(output.name)


def failures(folder: Path) -> list[str]:
    """What went wrong in the jobs of a sweep, one line each."""
    found = []
    for file in sorted(folder.glob(f"*/{JOB}")):
        job = read_json(file)
        if job["status"] == "failed":
            found.append(f"job {file.parent.name}: {job['error']}")
    return found


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file of ours as plain dicts and lists."""
    from omegaconf import OmegaConf

    found: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(file))  # type: ignore[assignment]
    return found


def write_yaml(file: Path, value: dict[str, Any]) -> None:
    """Write plain dicts and lists as YAML, atomically."""
    from omegaconf import OmegaConf

    write_bytes(file, OmegaConf.to_yaml(OmegaConf.create(value)).encode())
