"""A report as sections, sentences and words; English reports of chest and head, with or without headings.

What a radiologist dictates is not clean text: headings stand in capitals on a line of their own or before a colon in
running text, lists are numbered, lines are wrapped anywhere, names are replaced by XXXX, ___ or [**...**].
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: What a section is for -> its headings. Only findings and impression say what is in the picture.
HEADINGS = {
    "history": (
        "clinical history|clinical indications?|clinical information|clinical data|clinical details|clinical question|"
        "clinical statement|patient history|present illness|history of present illness|history|indications?|hx|"
        "reason for (?:the )?(?:exam|examination|study|test|request|order)|reason|symptoms?|presenting complaint|"
        "request|admitting diagnosis|underlying medical condition|medical condition|ordering diagnosis|hpi"
    ),
    "comparison": "comparisons?(?: studies| study)?|compared to|priors?|prior (?:study|studies|exams?)|previous exams?",
    "technique": (
        "technique|procedure(?: comments?)?|protocol|examination|exam(?: type| date| number)?|study|type of exam|"
        "views?|contrast|(?:radiation )?dose|date(?: of (?:exam|study))?|title|ct dose|dlp|scan|projections?"
    ),
    "findings": (
        "findings? (?:and|&|/) ?impressions?|findings?|reports?|results?|observations?|description|body of report|"
        "interpretation|addendum|attending(?: note)?|wet read"
    ),
    "impression": "(?:final )?impressions?|conclusions?|opinion|assessment|summary|diagnosis|final diagnosis|imp",
    "other": (
        "recommendations?|notifications?|critical results?|communication|"
        "(?:electronically )?signed(?: by)?|dictated(?: by)?|transcribed(?: by)?|radiologist|attestation|end of report"
    ),
}
FACTS = ("findings", "impression")
LONGEST_TITLE = 200  # letters before the first heading that are a title, not findings (our choice)

_KINDS = {kind: re.compile(rf"(?:{names})\Z", re.IGNORECASE) for kind, names in HEADINGS.items()}
_ALL = "|".join(HEADINGS.values())
# A heading before a colon: at the start of a line or after a sentence; in running text it must begin with a capital.
_COLON = re.compile(
    rf"(?:(?:^|\n)[ \t*#_]*(?P<line>{_ALL})|(?<=[.!?:\n] )(?P<inner>{_ALL}))[ \t*_]*:(?!\d)", re.IGNORECASE
)
# A heading without a colon has its line for itself.
_ALONE = re.compile(rf"(?:^|\n)[ \t*#_]*(?P<line>{_ALL})[ \t*_.]*(?=\n|\Z)", re.IGNORECASE)
_SIGNED = re.compile(
    r"(?im)^[ \t]*(?:(?:electronically|digitally) signed|dictated (?:by|and)|dictating|transcribed|interpreted by|"
    r"signed by|reviewed by|i have personally|read by)\b.*"
)
# Replaced names, dates and numbers of de-identified reports.
_REPLACED = re.compile(r"\[\*\*.*?\*\*\]|\[[A-Z _-]{3,}\]|<[A-Z_ -]{3,}>|_{2,}|\b[xX]{3,}\b")
_PLAIN = str.maketrans(
    {"\r": "\n", "\u2019": "'", "\u2018": "'", "\u2013": "-", "\u2014": "-", "\u00a0": " ", "\t": " "}
)

_SHORT = r"dr|drs|mr|mrs|ms|prof|st|vs|approx|e\.g|i\.e|etc|fig|cf|incl|ca|resp|lat|dept|jr|sr|inc|a\.m|p\.m|a\.p|max"
# A full stop that ends no sentence: of an abbreviation, an initial, or a number in a list.
_NO_END = re.compile(rf"(?:(?<![\w.])(?:{_SHORT})|(?<![\w.])[A-Za-z]|(?:^|[\n:.] *)\(?\d{{1,2}})\Z", re.IGNORECASE)
_END = re.compile(r"[.!?]+(?=[\s\"')\]]|\Z)|[.](?=[A-Z][a-z])|;")
_ITEM = re.compile(r"(?:(?<=\n)|(?<=^)|(?<=[.:;] )) *(?:\(?\d{1,2}[.)]|[-*\u2022>])(?: +|(?=[A-Za-z]))")
_BLANK = "\n\n"


def clean(text: str) -> str:
    """The text with line ends, quotes and blanks made alike, replaced names as XXXX, and without signatures."""
    text = text.replace("\r\n", "\n").translate(_PLAIN)
    return _SIGNED.sub("", _REPLACED.sub(" XXXX ", text))


def sections(text: str) -> list[tuple[str, str]]:
    """The parts of a cleaned text in order, as (kind, text); kinds are those of HEADINGS.

    Text before the first heading is a title (technique) when findings or an impression follow under their own
    heading, otherwise findings. Where there is no heading for the findings, history, comparison and technique end
    with their paragraph, or with their first sentence where the text has no paragraphs.
    """
    marks = sorted(_marks(text))
    if not marks:
        return [("findings", text)] if text.strip() else []
    kinds = [kind for _, _, kind in marks]
    parts = []
    before = text[: marks[0][0]]
    if before.strip():
        title = any(kind in FACTS for kind in kinds) and len(before) < LONGEST_TITLE
        parts.append(("technique" if title else "findings", before))
    for place, (_, start, kind) in enumerate(marks):
        body = text[start : marks[place + 1][0] if place + 1 < len(marks) else len(text)]
        follows = kinds[place + 1] if place + 1 < len(kinds) else None
        if (
            kind in ("history", "comparison", "technique")
            and "findings" not in kinds
            and follows in (None, "impression", "other")
        ):
            own, rest = _first_paragraph(body)
            parts += [(kind, own), ("findings", rest)]
        else:
            parts.append((kind, body))
    return [(kind, body) for kind, body in parts if body.strip()]


def _marks(text: str) -> Iterator[tuple[int, int, str]]:
    """Where headings start and end, and their kind."""
    taken: set[int] = set()
    for match in _COLON.finditer(text):
        name = match["line"] or match["inner"]
        if match["line"] or name[0].isupper():
            taken.update(range(match.start(), match.end()))
            yield match.start(), match.end(), _kind(name)
    for match in _ALONE.finditer(text):
        if taken.isdisjoint(range(match.start(), match.end())):
            yield match.start(), match.end(), _kind(match["line"])


def _kind(name: str) -> str:
    return next(kind for kind, names in _KINDS.items() if names.match(name))


def _first_paragraph(body: str) -> tuple[str, str]:
    stripped = body.lstrip()
    for end in (_BLANK, "\n"):
        own, found, rest = stripped.partition(end)
        if found and rest.strip():
            return own, rest
    ends = list(sentences(stripped))
    own = ends[0].removesuffix(" ?") if ends else ""
    whole = len(ends) > 1 and stripped.startswith(own)
    return (own, stripped[len(own) :].lstrip(" .?!")) if whole else (body, "")


def sentences(text: str) -> Iterator[str]:
    """Sentences of a cleaned text, without their list numbers; a wrapped line goes on, an item of a list is one."""
    capitals = _in_capitals(text)
    for block in _ITEM.sub(_BLANK, text).split(_BLANK):
        for line in _lines(block, capitals):
            yield from _split(line)


def _lines(block: str, capitals: bool) -> Iterator[str]:
    """Lines of a block that belong together are joined: the next one goes on unless it begins with a capital."""
    held = ""
    for line in (line.strip() for line in block.split("\n")):
        if not line:
            continue
        goes_on = capitals or not line[0].isupper() or held.endswith((",", "-", " and", " or", " the", " of", " with"))
        if held and not goes_on:
            yield held
            held = line
        else:
            held = f"{held} {line}" if held else line
    if held:
        yield held


def _in_capitals(text: str) -> bool:
    letters = [letter for letter in text[:2000] if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) > 0.8 * len(letters)


def _split(line: str) -> Iterator[str]:
    start = 0
    for match in _END.finditer(line):
        if match.group() == "." and _NO_END.search(line[max(0, match.start() - 12) : match.start()]):
            continue
        part = line[start : match.start()].strip()
        if "?" in match.group():  # it doubts what stands before it, or else what follows
            rest = line[match.end() :].lstrip()
            if not part or (line[match.start() - 1] == " " and rest[:1].islower()):
                continue
            part += " ?"
        if part:
            yield part
        start = match.end()
    if part := line[start:].strip():
        yield part


_WRITTEN_OUT = [
    (re.compile(rf"(?<![a-z]){short}(?![a-z])"), long)
    for short, long in (
        *(("r/o", "rule out"), ("w/o", "without"), ("h/o", "history of"), ("s/p", "status post")),
        ("and/or", "and or"),
    )
]
MOST_WORDS = 200  # of what is read as one sentence; what is longer is no sentence, and scopes need not cross it
_WORD = re.compile(
    r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?|[?,:()/]|(?<!#)#(?!\s*(?:\d|x{3}|#))"
)  # "#" is a fracture, "#2" not


def words(sentence: str) -> list[str]:
    """Lower-case words, numbers and the marks that end a clause; a hyphen joins nothing."""
    text = sentence.lower()
    for short, long in _WRITTEN_OUT:
        text = short.sub(long, text)
    return _WORD.findall(text)


def pieces(sentence: list[str]) -> Iterator[list[str]]:
    """The words of a sentence, MOST_WORDS at a time, cut after a comma where there is one."""
    while len(sentence) > MOST_WORDS:
        comma = next((place for place in range(MOST_WORDS - 1, 0, -1) if sentence[place] == ","), MOST_WORDS - 1)
        yield sentence[: comma + 1]
        sentence = sentence[comma + 1 :]
    yield sentence


def stem(word: str) -> str:
    """A word without its plural: Harman's S-stemmer (1991), with the Latin plural -ses (metastases, metastasis)."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith("ses") and not word.endswith(("uses", "ases")):
        return word[:-2] + "is"
    if word.endswith("stases"):
        return word[:-2] + "is"
    return word[:-1]


def normalised(text: str) -> str:
    """What makes two reports the same text: letters only, in lower case, without replaced names."""
    return " ".join(re.findall(r"[^\W\d_]+", _REPLACED.sub(" ", text).lower()))
