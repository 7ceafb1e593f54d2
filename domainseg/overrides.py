"""What was typed on the command line: rewritten into Hydra's grammar, and checked before Hydra runs.

What Hydra's grammar would refuse or misread is put right: paths are taken literally, experiments come last, networks
are chosen by name. What nobody knows (a misspelt key or group) is answered with the nearest known name, before a run
folder is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainseg.files import DomainsegError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

# Keys that name a path: their values are taken literally, whatever characters they hold.
PATH_KEYS = (
    *("input", "output", "data.path", "data.targets", "data.root", "bundle", "run", "predictions", "reports", "labels"),
    *("annotations", "dicom", "init_from", "base", "key", "private", "cache.folder", "readers", "retest"),
)
NETWORK_FILE = re.compile(r"(?:stage|baselines)\.[^.]+\.network\.weights")  # a path, too
# Plugins of Hydra that extras bring: the module, and the extra.
PLUGINS = {
    "hydra/sweeper=optuna_on_tune": ("hydra_plugins.hydra_optuna_sweeper", "optuna"),
    "hydra/launcher=submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}
# Those of them that are read: what they name is there before a command begins.
READ_KEYS = tuple(sorted(set(PATH_KEYS) - {"output", "data.root", "cache.folder", "base", "private"}))
# Groups that stand in no defaults list and are added: `+pipeline=hip`.
ADDED_GROUPS = ("pipeline", "experiment", "probe")


class UsageError(DomainsegError):
    """The command line cannot be used as typed. Commands print it as one line and exit with 2."""


def conf_folder() -> Path:
    """The folder conf/: at the top of a checkout, or inside the installed package."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "conf", here / "conf"):
        if (folder / "command.yaml").is_file():
            return folder
    raise UsageError(f"the configuration folder is missing: neither {here.parent / 'conf'} nor {here / 'conf'} exists")


# ---------------------------------------------------------------- before Hydra: rewriting


def rewrite(arguments: Sequence[str], *, word: str | None = None) -> list[str]:
    """Turn the arguments as typed into Hydra's grammar.

    Values of path keys are quoted; `stage.<name>.network=NAME` becomes `network@stage.<name>.network=NAME`; added
    groups get their plus; `data.cohort=` replaces what stands there; `+experiment=` goes last, since an overlay must
    follow what it overlays, and NAME may stand for the pipeline's own experiment <pipeline>_NAME; with ``word`` a bare
    first argument becomes `+<word>@_global_=<argument>`. Raises UsageError for a path that holds `${`.
    """
    arguments = list(arguments)
    if word is not None:
        if not arguments or "=" in arguments[0] or arguments[0].startswith("-"):
            known = ", ".join(options([conf_folder()], word))
            raise UsageError(f"the first argument names the {word}, one of: {known}")
        arguments[0] = f"+{word}@_global_={arguments[0]}"
    rewritten = []
    for argument in arguments:
        if cohort := re.match(r"(\+{0,2})data\.cohort=", argument):
            # Hydra would add it to the one that stands there. In a sweep, of two with one plus it drops the first.
            rewritten.append("++data.cohort=null" if cohort.group(1) == "+" else "data.cohort=null")
        rewritten.append(_rewrite_one(argument))
    last = [_of_pipeline(argument, rewritten) for argument in rewritten if typed_key(argument) == "experiment"]
    rest = [argument for argument in rewritten if typed_key(argument) != "experiment"]
    # Behind the last setting, and not behind a flag: Hydra's parser wants the settings in one piece.
    end = max((k for k, argument in enumerate(rest, 1) if "=" in argument and typed_key(argument)), default=len(rest))
    return rest[:end] + last + rest[end:]


def _of_pipeline(experiment: str, arguments: Sequence[str]) -> str:
    key, _, name = experiment.partition("=")
    known = options([conf_folder()], "experiment")
    for argument in arguments:
        if typed_key(argument) == "pipeline":
            own = f"{argument.partition('=')[2]}_{name}"
            if name not in known and own in known:
                return f"{key}={own}"
    return experiment


def _rewrite_one(argument: str) -> str:
    match = re.match(r"(\+{0,2})([^-+~=][^=]*)=(.*)\Z", argument, re.DOTALL)
    if match is None:
        return argument
    plus, key, value = match.groups()
    if key in PATH_KEYS:
        if "${" in value:
            raise UsageError(f"{key}={value}: a path cannot hold '${{'")
        return f"{plus}{key}={quoted(value)}"
    if argument == "hydra/sweeper=optuna":  # with our settings; a preset of the same name Hydra does not take
        return "hydra/sweeper=optuna_on_tune"
    if re.fullmatch(r"stage\.[^.@]+\.network", key):
        return f"{plus}network@{key}={value}"
    if key in ADDED_GROUPS and not plus:
        return f"+{argument}"
    if not plus and (
        key == "columns" or f"{key}.".startswith("data.cohort.")
    ):  # names that only the user's table knows
        return f"++{argument}"
    return argument


def quoted(value: str) -> str:
    """The value as a single-quoted string of Hydra's grammar: backslashes count only before a quote or the end."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"


def typed_key(argument: str) -> str:
    """The key of an argument as typed, without plus, tilde and package; empty for a flag."""
    match = re.match(r"(?:\+{1,2}|~)?([^-+~=@][^=@]*)", argument)
    return match.group(1) if match else ""


def extra_folders(arguments: Sequence[str]) -> list[Path]:
    """Folders named with Hydra's --config-dir: pipelines and networks that a user keeps beside the project."""
    found = []
    for position, argument in enumerate(arguments):
        if argument in ("--config-dir", "-cd") and position + 1 < len(arguments):
            found.append(Path(arguments[position + 1]))
        elif argument.startswith("--config-dir="):
            found.append(Path(argument.partition("=")[2]))
    return found


# ---------------------------------------------------------------- before Hydra: checking


def parse(arguments: Sequence[str], folders: Sequence[Path]) -> tuple[list[Override], list[Override]]:
    """The overrides among the arguments, and those of them that choose from a group, whose choices exist.

    Raises UsageError for what is no override and for a choice that nobody knows, with the nearest known one.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    typed, after_flag = [], False
    for argument in arguments:
        flag = argument.startswith("-")
        if not flag and ("=" in argument or argument.startswith("~")):
            typed.append(argument)
        elif not flag and not after_flag:
            raise UsageError(f"{argument}: settings are typed as key=value")
        after_flag = flag
    overrides = []
    for argument in typed:
        try:
            overrides += OverridesParser.create().parse_overrides([argument])
        except HydraException as error:
            raise UsageError(f"{argument}: {str(error).splitlines()[0]}") from error
    for override in overrides:
        _check_plugin(override)
    groups = [
        override
        for override in overrides
        if not override.key_or_group.startswith("hydra/")  # Hydra and its plugins have more than our folder holds
        and any((folder / override.key_or_group).is_dir() for folder in folders)
    ]
    for override in groups:
        group, known = override.key_or_group, options(folders, override.key_or_group)
        for name in (
            name for choice in choices(override) for name in (choice if isinstance(choice, list) else [choice])
        ):
            if name is not None and str(name) not in known:
                raise UsageError(f"{group}={name}: {nearest(str(name), known)} Known: {', '.join(known)}.")
    return overrides, groups


def _check_plugin(override: Override) -> None:
    """Raise UsageError for a plugin of Hydra that is not installed, with the extra that brings it."""
    name = f"{override.key_or_group}={override.value()}"
    if name not in PLUGINS:
        return
    module, extra = PLUGINS[name]
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        plugin = module.rpartition(".")[2]
        raise UsageError(f'{override.key_or_group}: {plugin} is not installed: pip install "domainseg[{extra}]"')


def options(folders: Iterable[Path], group: str) -> list[str]:
    """What can be chosen from a group."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def choices(override: Override) -> list[Any]:
    """The values of an override: one, or those of a sweep."""
    if override.is_sweep_override():
        return list(override.sweep_iterator()) if override.is_discrete_sweep() else []
    return [override.value()]


def check_key(override: Override, config: DictConfig, folders: Sequence[Path]) -> None:
    """Raise UsageError, with the nearest known name, when the key is not in the config.

    With a plus a new key may be added to a node that exists, never at the top.
    """
    name = override.key_or_group
    known = list(keys(config))
    added = (override.is_add() or override.is_force_add()) and name.rpartition(".")[0] in known
    if name in known or added or name.partition(".")[0] == "hydra" or name.startswith("hydra/"):
        return
    groups = [folder.name for top in folders for folder in top.iterdir() if folder.is_dir()]
    raise UsageError(f"{name}: {nearest(name, [*groups, *known])}")


def keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config, inner nodes too."""
    from omegaconf import DictConfig

    for key in config:
        yield f"{prefix}{key!s}"
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from keys(node, f"{prefix}{key!s}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """`Did you mean X?`, by the likeness of the whole dotted name or of its last part, whichever is greater."""

    def likeness(other: str) -> float:
        whole = SequenceMatcher(None, name, other).ratio()
        last = SequenceMatcher(None, name.rpartition(".")[2], other.rpartition(".")[2]).ratio()
        return max(whole, 0.9 * last)

    best = max(known, key=likeness, default="")
    return f"nobody knows this name. Did you mean {best}?" if likeness(best) >= 0.5 else "nobody knows this name."


def compose(config_name: str, overrides: Iterable[Override], folders: Sequence[Path]) -> DictConfig:
    """Compose without running; of a sweep the first choice. Raises UsageError."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    lines = []
    for override in overrides:
        if override.is_discrete_sweep():
            assert override.input_line is not None
            lines.append(f"{override.input_line.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}")
        elif not override.is_sweep_override():
            lines.append(str(override.input_line))
    if len(folders) > 1:
        lines.append("hydra.searchpath=[" + ",".join(quoted(f"file://{path.absolute()}") for path in folders[1:]) + "]")
    try:
        with hydra.initialize_config_dir(str(folders[0]), version_base="1.3"):
            return hydra.compose(config_name, overrides=lines)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(" ".join(str(error).split("\n")[:2])) from error
