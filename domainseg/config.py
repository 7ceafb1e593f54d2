"""Commands: from what was typed to a plain, checked configuration and a run folder."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from domainseg import sweeps
from domainseg.files import DomainsegError, atomic_path, no_room
from domainseg.overrides import (
    ADDED_GROUPS,
    NETWORK_FILE,
    PATH_KEYS,
    READ_KEYS,
    UsageError,
    check_key,
    choices,
    compose,
    conf_folder,
    extra_folders,
    keys,
    options,
    parse,
    rewrite,
    typed_key,
)

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

Main = Callable[[dict[str, Any], Path], Any]
Job = Callable[["DictConfig"], Any]

ERRORS_FOR_PEOPLE = (DomainsegError, FileNotFoundError, NotADirectoryError, PermissionError)

# The extra that brings a module that the base does not install.
EXTRAS = {
    **dict.fromkeys(["albumentations", "monai", "pytorch_lightning", "segmentation_models_pytorch"], "train"),
    **dict.fromkeys(["tensorboard", "torch", "torchmetrics", "torchvision"], "train"),
    **dict.fromkeys(["mlflow", "sqlalchemy"], "mlflow"),
    "openvino": "openvino",
    "highdicom": "seg",
}


def launch(
    main: Main,
    config_name: str,
    argv: Sequence[str] | None = None,
    *,
    word: str | None = None,
    summary: Callable[[Path], None] | None = None,
    record: bool = True,
) -> Any:
    """Compose conf/<config_name>.yaml with what was typed, check it, and call ``main(config, output)``.

    ``argv`` are the arguments without the program's name (default: those of the process). ``word`` names the group
    from which a bare first argument picks (`phantom pelvis n=5`). ``main`` gets plain dicts and lists with every
    interpolation resolved and every path absolute, and the folder to write to, which exists. Returns what ``main``
    returned (in a multirun: for its last job). The text of `--help` is the docstring of ``main``'s module.
    ``summary`` is called with the folder of a sweep after each of its jobs; a command that has one can be swept, and a
    sweep that was stopped goes on (see domainseg/sweeps.py). ``record`` says whether the composed config is written
    into the output folder: a bundle holds nothing but itself.

    Exits with 2 when the command line cannot be used and with 1 on an error that is for people (DomainsegError, a
    file that is missing, an extra that is not installed), each told in one line on stderr.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument in ("-h", "--help") for argument in arguments):
        print(_help_text(main, config_name, word))
        return None
    try:
        folders = [conf_folder(), *extra_folders(arguments)]
        arguments = rewrite(arguments, word=word)
        if several_started():
            arguments = _joint(arguments)
        sweep = None
        if summary is not None and sweeps.is_sweep(arguments):
            arguments, sweep = sweeps.begin(config_name, arguments, folders)
        resumed = _check(config_name, arguments, folders)
    except UsageError as error:
        _say_and_exit(f"{error}\nSee: python -m domainseg.{config_name} --help", 2)
    except FileNotFoundError as error:
        _say_and_exit(str(error), 1)
    if resumed is not None:
        arguments = [argument for argument in arguments if typed_key(argument) in ("output", "resume")]
    if sweep is None or summary is None:
        return _run(_single(main, resumed, record), config_name, arguments, folders[0])
    value = _run(_swept(main, sweep, summary), config_name, arguments, folders[0])
    summary(sweep.folder)
    if failed := sweeps.failures(sweep.folder):
        _say_and_exit("\n  ".join([f"failed jobs of the sweep: {len(failed)}", *failed]), 1)
    return value


def several_started(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether srun or torchrun has started several processes of this command."""
    return int(environment.get("WORLD_SIZE", environment.get("SLURM_STEP_NUM_TASKS", "1"))) > 1


def _process_number(environment: Mapping[str, str] = os.environ) -> int:
    """Which of several processes that were started together this is; 0 writes the files."""
    if not several_started(environment):
        return 0
    return int(environment["RANK"] if "WORLD_SIZE" in environment else environment["SLURM_PROCID"])


def _joint(arguments: list[str]) -> list[str]:
    """The arguments of one of several processes: all write to one folder, one of them writes the log.

    Raises UsageError for what each process would do in its own way.
    """
    if sweeps.is_sweep(arguments):
        raise UsageError("-m: srun or torchrun start the processes of one run; to sweep, start one process")
    if not any(typed_key(argument) == "output" for argument in arguments):
        raise UsageError("several processes were started (srun, torchrun): name their common folder with output=DIR")
    return (
        arguments
        if _process_number() == 0
        else [*arguments, "hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
    )


def _check(config_name: str, arguments: Sequence[str], folders: list[Path]) -> dict[str, Any] | None:
    """Raise UsageError for names that nobody knows and values that are missing; the saved config of a resumed run.

    Raises FileNotFoundError for a path to read that is not there, before anything slow is imported or written.
    """
    from omegaconf import OmegaConf

    typed, groups = parse(arguments, folders)
    for override in typed:
        key = override.key_or_group
        if key in READ_KEYS or NETWORK_FILE.fullmatch(key):
            for path in map(str, filter(None, choices(override))):
                if "${" not in path and not Path(path).exists():
                    raise FileNotFoundError(f"{key}={path}: does not exist")
    named = any(argument.startswith(("--config-name", "-cn")) for argument in arguments)
    for folder in extra_folders(arguments):
        file, own = folder / f"{config_name}.yaml", conf_folder() / f"{config_name}.yaml"
        if not named and file.is_file() and file.read_bytes() != own.read_bytes():
            raise UsageError(
                f"{file}: would have no effect, the program's own goes first; give it another name and type "
                "--config-name NAME"
            )
    if any(override.key_or_group == "resume" and override.value() is True for override in typed):
        return _resume(config_name, typed, groups, folders)
    base = compose(config_name, groups, folders)
    for override in typed:
        if override not in groups:
            check_key(override, base, folders)
    if config_name == "train" and not any(override.key_or_group == "pipeline" for override in groups):
        raise UsageError(f"no pipeline: add +pipeline=NAME, one of: {', '.join(options(folders, 'pipeline'))}")
    missing = sorted(OmegaConf.missing_keys(compose(config_name, typed, folders)))
    if missing:
        raise UsageError(f"not given: {', '.join(f'{key}=' for key in missing)}")
    return None


# ---------------------------------------------------------------- resuming


def _resume(config_name: str, typed: list[Override], groups: list[Override], folders: list[Path]) -> dict[str, Any]:
    """The config of the run in `output`, with the trainer settings that were typed. A changed setting is refused."""
    from omegaconf import DictConfig, OmegaConf

    output = next((override.value() for override in typed if override.key_or_group == "output"), None)
    if output is None:
        raise UsageError("resume=true needs output=DIR, the folder of the run to go on with")
    file = Path(str(output)) / "config.yaml"
    if not file.is_file():
        if (file.parent / sweeps.SWEEP).is_file():
            raise UsageError(f"output={output}: holds a sweep. Add -m to go on with it, or name the folder of a job")
        raise UsageError(f"output={output}: no run to resume, {file} does not exist")
    saved = OmegaConf.load(file)
    assert isinstance(saved, DictConfig)
    trainer = [override for override in typed if _top(override.key_or_group) == "trainer"]
    others = [override for override in typed if _top(override.key_or_group) not in ("trainer", "resume", "output")]
    if any(override in groups for override in others):
        now = OmegaConf.create(plain(compose(config_name, others, folders)))
        compared = {key for key in (*keys(now), *keys(saved)) if _top(key) not in ("trainer", "resume", "output")}
    else:
        for override in others:
            check_key(override, saved, folders)
        now = OmegaConf.create(plain(_updated(OmegaConf.create(), others)))
        cohort = any(override.key_or_group == "data.cohort" for override in others)  # replaced as a whole
        compared = {*keys(now), *(key for key in keys(saved) if cohort and key.startswith("data.cohort."))}
    changed = sorted(key for key in compared if _differ(OmegaConf.select(now, key), OmegaConf.select(saved, key)))
    if changed:
        raise UsageError(f"resume=true: differs from {file}: {', '.join(changed)}. Only trainer settings may change")
    chosen = [override for override in trainer if override in groups]
    known = compose(config_name, chosen, folders)
    if chosen:
        saved.trainer = known.trainer
    for node, defaults in ((saved, known), (saved.trainer, known.trainer)):
        for key in defaults:  # settings that came after the version that began this run
            if key not in node:
                node[key] = defaults[key]
    single = [override for override in trainer if override not in groups]
    for override in single:
        check_key(override, saved, folders)
    return plain(_updated(saved, single)) | {"resume": True}


def _top(key: str) -> str:
    return key.partition(".")[0]


def _updated(config: DictConfig, overrides: Iterable[Override]) -> DictConfig:
    from omegaconf import OmegaConf

    for override in overrides:
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
    return config


def _differ(one: Any, other: Any) -> bool:
    from omegaconf import DictConfig

    inner = isinstance(one, DictConfig), isinstance(other, DictConfig)
    return inner[0] != inner[1] if any(inner) else bool(one != other)


# ---------------------------------------------------------------- running


def _single(main: Main, resumed: dict[str, Any] | None, record: bool) -> Job:
    """What a run does with the composed config; an error for people is told and ends it."""

    def job(config: DictConfig) -> Any:
        output = _output()
        try:
            settings = (plain(config) if resumed is None else resumed) | {"output": str(output)}
            if record:
                _save(settings, output)
            return main(settings, output)
        except Exception as error:
            line = told(error)
            if line is None:
                raise
            _say_and_exit(line, 2 if isinstance(error, UsageError) else 1, error)

    return job


def _swept(main: Main, sweep: sweeps.Sweep, summary: Callable[[Path], None]) -> Job:
    """What a job of a sweep does with the composed config."""

    def job(config: DictConfig) -> Any:
        if several_started():
            _say_and_exit("hydra.launcher: one task runs a job and starts the processes of trainer.devices itself", 2)
        output = _output()
        try:
            return sweeps.run_job(main, plain(config) | {"output": str(output)}, output, sweep, summary, told)
        except UsageError as error:  # of the sweep, not of a job
            _say_and_exit(str(error), 2, error)

    return job


def _output() -> Path:
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.output_dir)


def told(error: Exception) -> str | None:
    """The line that an error is for people; None for what is a mistake of ours and needs its traceback."""
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        return None if extra is None else f'{error.name} is not installed: pip install "domainseg[{extra}]"'
    if isinstance(error, OSError) and (full := no_room(error.filename or _output(), error)) is not None:
        return str(full)  # from a library that writes by itself
    return str(error) if isinstance(error, ERRORS_FOR_PEOPLE) else None


def _run(job: Job, config_name: str, arguments: list[str], folder: Path) -> Any:
    import hydra

    results: list[Any] = []

    def kept(config: DictConfig) -> Any:
        results.append(job(config))
        return results[-1]

    before = sys.argv
    sys.argv = [before[0] if before else config_name, *arguments]
    try:
        hydra.main(config_path=str(folder), config_name=config_name, version_base="1.3")(kept)()
    finally:
        sys.argv = before
    return results[-1] if results else None


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain dicts and lists, interpolations resolved, paths absolute."""
    from omegaconf import OmegaConf

    found = OmegaConf.create(OmegaConf.to_container(config))
    groups = ("stage", "baselines")
    files = [f"{group}.{name}.network.weights" for group in groups for name in OmegaConf.select(found, group) or {}]
    for key in (*PATH_KEYS, *files):  # before anything is resolved, so that what begins with a path is absolute too
        value = OmegaConf.select(found, key)
        if isinstance(value, str) and value:
            OmegaConf.update(found, key, str(Path(value).absolute()))
    resolved = OmegaConf.to_container(found, resolve=True)
    return {str(key): value for key, value in resolved.items()}  # type: ignore[union-attr]


def _save(settings: dict[str, Any], output: Path) -> None:
    """Write the resolved config. What trains can be resumed, owns config.yaml and overwrites no run that has begun.

    An audit that trains goes on when the same command is typed again; one that does not is simply made anew.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    resumable = "resume" in settings and bool(settings["stage"])
    if _process_number() > 0 or (resumable and settings["resume"]):
        return
    file = output / ("config.yaml" if resumable else f"{HydraConfig.get().job.name}.yaml")
    begun = any(entry != file and entry.suffix != ".log" for entry in output.iterdir())
    if resumable and "probe" in settings and file.is_file() and OmegaConf.load(file) == settings:
        return
    if resumable and ((file.exists() and begun) or (output / sweeps.SWEEP).exists()):
        raise UsageError(f"output={output}: holds a run. Add resume=true to go on with it, or name another folder")
    if resumable and (output / "predictions.json").exists():
        raise UsageError(f"output={output}: holds a finished prediction, which is not replaced; name another folder")
    with atomic_path(file) as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(settings)))


def _say_and_exit(message: str, code: int, error: Exception | None = None) -> NoReturn:
    if error is not None and os.environ.get("HYDRA_FULL_ERROR"):
        raise error
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


# ---------------------------------------------------------------- help


def _help_text(main: Main, config_name: str, word: str | None) -> str:
    """The docstring of the command, what its groups offer, and its settings with their comments; no Hydra is loaded."""
    folder = conf_folder()
    text = (sys.modules[main.__module__].__doc__ or "").strip()
    own = (folder / f"{config_name}.yaml").read_text()
    defaults = re.findall(r"^ +- (?:override )?/?(\w+):", own, re.MULTILINE)
    groups = [*([word] if word else []), *(["pipeline"] if config_name == "train" else []), *defaults]
    if config_name == "train":
        groups += ["experiment", "network"]
    if config_name == "audit":
        groups += ["probe", "data"]
    for group in groups:
        choices = options([folder], group)
        if choices:
            title = f"{'+' if group in ADDED_GROUPS else ''}{group}="
            text += f"\n\n{'NAME' if group == word else title}"
        for name in choices:
            text += f"\n  {name:18} {_first_comment(folder / group / f'{name}.yaml')}".rstrip()
    text += "\n\nSettings and their defaults"
    words = [(folder / word / f"{name}.yaml").read_text() for name in options([folder], word)] if word else []
    for comment, key, value in re.findall(r"((?:^# .*\n)+)^(\w+):(.*)$", "\n\n".join([own, *words]), re.MULTILINE):
        text += f"\n  {key}={value.strip()}\n      {' '.join(line[2:] for line in comment.splitlines())}"
    return text


def _first_comment(file: Path) -> str:
    comments = re.findall(r"^# (?!@)(.*)$", file.read_text(), re.MULTILINE)
    return comments[0] if comments else ""
