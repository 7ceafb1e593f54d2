"""Findings and the phrases that mention them, read from YAML: conf/lexicon/*.yaml, or a file of the user's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainseg.files import DomainsegError
from domainseg.labeling.text import stem
from domainseg.overrides import conf_folder

_KEYS = ("names", "terms", "normal", "not", "includes", "without")
# What "..." stands for: up to five words. In a term no other clause may begin there; where a list of organs is normal
# ("heart, mediastinum and hila are normal"), none of them may be abnormal.
_GAP = r"(?: (?!(?:normal|and|but|unremarkable)\b)[^\s,:()]+){0,5}? "
_NORMAL_GAP = r"(?: (?!(?:enlarged|prominent|increased|widened|abnormal|not|but|fractur\w+|dilated)\b)\S+){0,7}? "


class LexiconError(DomainsegError):
    """A lexicon that cannot be used; the message names the file, the finding and what is wrong."""


@dataclass(frozen=True)
class Finding:
    """A finding with its phrases as patterns over the words of a sentence, joined by single blanks.

    terms mention it, normal ones deny it, excluded ones hold a term but mean something else. anchor: one word of
    every sentence that mentions it. includes: findings whose mentions are its own too. without: it is there when none
    of these is asserted or doubted.
    """

    name: str
    names: frozenset[str]
    terms: re.Pattern[str] | None
    normal: re.Pattern[str] | None
    excluded: re.Pattern[str] | None
    anchor: re.Pattern[str]
    includes: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lexicon:
    """All findings in order; ``source`` holds the phrases as they were read, to be written down."""

    findings: Mapping[str, Finding]
    source: Mapping[str, Any]
    _candidates: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def of_label(self, label: str) -> str | None:
        """The finding that a label of this name means, None when the lexicon has none."""
        wanted = simple(label)
        for finding in self.findings.values():
            if wanted == simple(finding.name) or wanted in finding.names:
                return finding.name
        return None

    def candidates(self, words: Iterable[str]) -> list[str]:
        """The findings that one of these words may mention; all others need not be looked for."""
        found: dict[str, None] = {}
        for word in words:
            names = self._candidates.get(word)
            if names is None:
                names = tuple(
                    name
                    for name, finding in self.findings.items()
                    if finding.terms is not None and finding.anchor.fullmatch(word)
                )
                self._candidates[word] = names
            found.update(dict.fromkeys(names))
        return list(found)


def simple(name: str) -> str:
    """A name in lower case with single blanks for "_", "-", "/" and commas, each word without its plural."""
    return " ".join(stem(word) for word in re.split(r"[\s_,/-]+", name.strip().lower()) if word)


def read_lexicons(named: Sequence[str]) -> Lexicon:
    """The findings of several lexicons, each a name in conf/lexicon or a YAML file; a later one replaces a finding.

    Raises LexiconError for a file that is missing or malformed, or that names a finding nobody has.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    source: dict[str, Any] = {}
    for name in named:
        path = conf_folder() / "lexicon" / f"{name}.yaml"
        if not path.is_file():
            path = Path(name)
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in (conf_folder() / "lexicon").glob("*.yaml")))
            raise LexiconError(f"terms: {name} is neither a lexicon ({known}) nor a YAML file")
        try:
            read = OmegaConf.to_container(OmegaConf.load(path))
        except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
            raise LexiconError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
        if not isinstance(read, dict) or not read:
            raise LexiconError(f"{path}: holds no findings; write a finding a key, with its terms: [phrase, ...]")
        for key, value in read.items():
            source[str(key)] = _checked(value, str(key), path)
    shipped = {str(key) for file in (conf_folder() / "lexicon").glob("*.yaml") for key in OmegaConf.load(file)}
    for key, value in source.items():
        for other in value.get("includes", ()):
            if other not in source:
                raise LexiconError(f"lexicon: {key} includes {other}, which no lexicon in terms= has")
        for other in value.get("without", ()):  # of lexicons that are not asked for nothing is found
            if other not in source and other not in shipped:
                raise LexiconError(f"lexicon: {key} is without {other}, which no lexicon has")
    findings = {key: _finding(key, value) for key, value in source.items()}
    return Lexicon(findings, source)


def _checked(value: Any, key: str, path: Path) -> dict[str, list[str]]:
    if isinstance(value, list):
        value = {"terms": value}
    if not isinstance(value, dict) or not set(value) <= set(_KEYS):
        raise LexiconError(f"{path}: {key}: a list of phrases, or a mapping with keys among {', '.join(_KEYS)}")
    for name, items in value.items():
        if not isinstance(items, list) or not all(isinstance(item, str) and item.strip() for item in items):
            raise LexiconError(f"{path}: {key}.{name}: must be a list of phrases")
    if not value.get("terms") and not value.get("without") and not value.get("includes"):
        raise LexiconError(f"{path}: {key}: has no terms")
    return value


def _finding(key: str, value: Mapping[str, list[str]]) -> Finding:
    return Finding(
        name=key,
        names=frozenset(simple(name) for name in value.get("names", ())),
        terms=_pattern(value.get("terms", ())),
        normal=_pattern(value.get("normal", ()), _NORMAL_GAP),
        excluded=_pattern(value.get("not", ())),
        anchor=_anchor([*value.get("terms", ()), *value.get("normal", ())]),
        includes=tuple(value.get("includes", ())),
        without=tuple(value.get("without", ())),
    )


def _pattern(phrases: Sequence[str], gap: str = _GAP) -> re.Pattern[str] | None:
    if not phrases:
        return None
    return re.compile(r"(?<!\S)(?:" + "|".join(_phrase(phrase, gap) for phrase in phrases) + r")(?!\S)")


def _phrase(phrase: str, gap: str) -> str:
    return gap.join(" ".join(_word(word) for word in part.split()) for part in phrase.lower().split(" ... "))


def _word(word: str) -> str:
    """One word of a phrase: its alternatives, each with its plural or, with "*", any ending; "_" stands for a blank."""
    return "(?:" + "|".join(_choice(choice.replace("_", " ")) for choice in word.split("|")) + ")"


def _choice(choice: str) -> str:
    if "*" in choice:
        return re.escape(choice).replace(r"\*", r"\w*")
    return re.escape(choice[:-1]) + "(?:y|ies)" if choice.endswith("y") else re.escape(choice) + "(?:e?s)?"


def _anchor(phrases: Sequence[str]) -> re.Pattern[str]:
    """A pattern for single words, one of which stands in every sentence that a phrase is in: of each its longest."""
    longest = [max(phrase.lower().replace("...", "").split(), key=_shortest_choice) for phrase in phrases]
    choices = [choice.rpartition("_")[2] for word in longest for choice in word.split("|")]
    return re.compile("|".join(_choice(choice) for choice in choices))


def _shortest_choice(word: str) -> int:
    return min(len(choice) for choice in word.split("|"))
