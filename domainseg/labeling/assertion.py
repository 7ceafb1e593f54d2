"""What a sentence asserts of each of its words: that it is there, that it is not, that it may be, that it was.

After NegEx (Chapman et al. 2001) and the three phases of NegBio and CheXpert (Peng et al. 2018, Irvin et al. 2019),
on words instead of parse trees: cue phrases open a scope, to the right or to the left, which ends at a word such as
"but", at the mark or conjunction after which a new finding begins, or with the sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

AFFIRMED, NEGATED, UNCERTAIN, HISTORICAL = 1, 2, 3, 4

# Phrases with a cue word in them that negate nothing and leave nothing open.
_PSEUDO = """
no change | no significant change | no interval change | no significant interval change | no acute interval change |
no appreciable change | no substantial change | no relevant change | no definite change | without change |
without significant change | without interval change | without significant interval change | no increase |
no significant increase | no decrease | no further increase | no worsening of | no improvement |
no interval improvement | no significant improvement | not changed | not significantly changed |
not substantially changed | not appreciably changed | no longer than | not only | not larger | not enlarging |
not drain | no other | no further | not well evaluated | not optimally evaluated | not well seen |
not well visualized | not fully evaluated | not included | not decreased | not increased | not resolved |
not cleared | not completely resolved | has not resolved | have not resolved | without comparison | no comparison |
no prior | no previous | without contrast | not limited to | no contrast | may be related to | may be due to |
may be secondary to | without intravenous contrast | cannot be compared | in the absence of contrast | no difference |
without difficulty | no old studies | no relevant prior | partial resolution of | incomplete resolution of |
near complete resolution of | partial clearing of | partially resolved | partly resolved | nearly resolved |
almost resolved | mostly resolved | incompletely resolved | nearly completely resolved | almost completely resolved |
has partially resolved | have partially resolved | has nearly resolved | have nearly resolved |
has almost completely resolved | has mostly resolved | partially cleared | has partially cleared |
no enlargement of the known | no interval enlargement | no further enlargement | no interval expansion
"""
# The same of what is followed up: "no substantial interval change in the pneumothorax" tells that there is one.
_FOLLOWED = (
    ("no", "without", "no evidence of", "without evidence of"),
    ("", "significant", "substantial", "appreciable", "definite", "major"),
    ("", "interval"),
    ("change", "increase", "decrease", "progression", "improvement", "worsening"),
)
_NEGATE_AFTER = """
no | not | non | without | without evidence of | without any evidence of | no evidence of | no evidence for |
no radiographic evidence of | no ct evidence of | no definite evidence of | no convincing evidence of | no sign of |
no signs of | no suggestion of | no suspicious | no findings of | no findings to suggest | no finding to suggest |
no evidence to suggest | no indication of | nothing to suggest | not demonstrate | not show | not reveal | never had |
negative for | free of | clear of | absence of | absent | lack of | lacks | lacking | denies | denied | deny |
neither | nor | rather than | instead of | resolution of | interval resolution of | complete resolution of |
clearing of | interval clearing of | excludes | exclude any | rules out | ruled out for | removal of |
interval removal of | unremarkable for | devoid of | fails to reveal | failed to reveal | against |
inconsistent with | argues against | has cleared of | with no | with no evidence of | cannot see | can't see |
no longer | no definite | no obvious | no overt | no focal | no acute | no large | unlikely to represent |
unlikely to be | not consistent with
"""
_NEGATE_BEFORE = """
no | has been excluded | have been excluded | was excluded | were excluded | is ruled out | are ruled out |
was ruled out | ruled out | has been ruled out | have been ruled out | is absent | are absent | absent | not seen |
not identified | not present | not visualized | not demonstrated | not evident | not detected | not appreciated |
not apparent | not noted | not found | not observed | not visible | is not seen | are not seen | no longer seen |
no longer visualized | no longer present | no longer identified | no longer evident | no longer apparent |
no longer visible | not currently seen | not definitely seen | not clearly seen | has resolved | have resolved |
has cleared | have cleared | resolved | cleared | has completely resolved | is resolved | are resolved |
has since resolved | have since resolved | has now resolved | has been removed | have been removed | was removed |
were removed | removed | is excluded | are excluded | is negative | are negative | negative | is unlikely |
are unlikely | unlikely | thought unlikely | is not suggested | is not suspected | not suspected | free |
not enlarged | not dilated | none | is normal | are normal | unremarkable | is unremarkable | are unremarkable |
within normal limits | is within normal limits | are within normal limits | normal limits | is intact | are intact
"""
_DOUBT_AFTER = """
may | may be | may represent | may reflect | may indicate | may have | might | might be | might represent | could |
could be | could represent | could reflect | can represent | possible | possibly | potential | potentially | perhaps |
questionable | equivocal | question | question of | questioned | questioning | suspicious for | suspicion for |
suspicion of | suspicious of | suspect | suspected | concern for | concerning for | concern of | worrisome for |
worrying for | suggest | suggests | suggesting | suggestive of | suggestion of | cannot exclude | can not exclude |
cannot rule out | can not rule out | can't exclude | can't rule out | cannot entirely exclude |
cannot completely exclude | does not exclude | do not exclude | not exclude | unable to exclude | not rule out |
could not exclude | difficult to exclude | hard to exclude | rule out | to exclude | exclude | evaluate for |
assess for | evaluation for | evaluation of possible | differential includes | differential diagnosis includes |
differential | differential considerations include | considerations include | diagnostic considerations include |
indeterminate | borderline | raises the possibility of | raise the possibility of | raising the possibility of |
possibility of | raises concern for | raising concern for | raises the question of | raises suspicion for |
presumably | presumed | vague | ? | if | in the appropriate clinical | in the proper clinical |
in the correct clinical | would be consistent | risk of | not certain whether | uncertain whether | unclear whether |
whether | appears to be | seems to be | either | equivocally | subtle suggestion of | less likely | much less likely |
query
"""
_DOUBT_BEFORE = """
? | cannot be excluded | can not be excluded | can't be excluded | cannot be entirely excluded | not be excluded |
cannot be completely excluded | cannot be fully excluded | cannot entirely be excluded |
cannot completely be excluded | cannot be ruled out | can not be ruled out | cannot be definitively excluded |
cannot be totally excluded | not excluded | not entirely excluded | not completely excluded | is not excluded |
are not excluded | not ruled out | difficult to exclude | is possible | are possible | possible | is suspected |
are suspected | suspected | is questioned | are questioned | questioned | may be present | might be present |
could be present | may also be present | should be considered | could be considered | to be considered |
is considered | is a consideration | would be a consideration | is in the differential | in the differential |
is of concern | is difficult to exclude | are difficult to exclude | hard to exclude | not definitely excluded |
equivocal | indeterminate | is indeterminate | are indeterminate | remains a possibility | is a possibility |
cannot be entirely ruled out
"""
_DOUBT_BOTH = "versus | vs | and or"
_PAST_AFTER = """
history of | known history of | past history of | prior history of | remote history of | previous history of |
with history of | status post | s p | post resection of | family history of | risk factors for | screening for
"""
# What ends every scope: an exception, a reason, a new statement.
_STOP = """
but | however | although | though | except | except for | apart from | aside from | other than | besides | yet |
nevertheless | whereas | while | otherwise | secondary to | due to | because of | related to | as a result of |
consistent with | compatible with | representing | reflecting | indicating | which | there is | there are |
there was | there has | is seen | are seen | is present | are present | is noted | are noted | is again | are again |
demonstrates | demonstrate | shows | show | reveals | likely | probably | status post | superimposed on |
in the setting of | in keeping with | has developed | have developed | remains | remain | persists | persist |
seen in | noted in | suggests | has increased | have increased | has decreased | have decreased | has worsened |
is increased | are increased | is enlarged | are enlarged | as well as
"""
# After a comma or "and" these begin a new, affirmed finding: "no effusion, mild cardiomegaly".
_BEGINS = """
a again an bibasilar bilateral calcified cardiac chronic comminuted continued decreased degenerative diffuse displaced
elevated extensive heart improved improving increased increasing interval large left low lungs markedly massive
mediastinal mediastinum mild mildly minimal moderate moderately multiple new nondisplaced normal old patchy patient
persistent prominent residual right scattered severe severely slightly small stable stably status the there these this
tiny unchanged unremarkable with worsening
"""
# Words after which "or" goes on with what was said, so that a comma before them ends nothing.
_LIST = frozenset(("or", "nor"))
_NEW = frozenset(_BEGINS.split())
# These do where nothing else is listed: not in "no hemorrhage, acute infarct, mass".
_NEW_LAST = frozenset(("acute", "subtle"))
_REACH_BEFORE = 12  # words that a cue to the right of its finding reaches back (our choice)


@dataclass(frozen=True)
class Cue:
    """A cue phrase in a sentence: words ``start`` to ``end``, what it says, and to which side."""

    start: int
    end: int
    kind: str


def _phrases() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """First word of a cue -> its phrases, the longest first."""
    kinds = {
        "pseudo": _PSEUDO, "stop": _STOP, "negate after": _NEGATE_AFTER, "negate before": _NEGATE_BEFORE,
        "doubt after": _DOUBT_AFTER, "doubt before": _DOUBT_BEFORE, "doubt both": _DOUBT_BOTH,
        "past after": _PAST_AFTER,
    }  # fmt: skip
    found: dict[tuple[str, ...], str] = {tuple(" ".join(parts).split()): "pseudo" for parts in product(*_FOLLOWED)}
    for kind, listed in kinds.items():
        for phrase in listed.replace("\n", " ").split("|"):
            key = tuple(phrase.split())
            found[key] = f"{found[key]}, {kind}" if key in found and kind not in found[key] else kind
    by_first: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for key, kind in sorted(found.items(), key=lambda item: -len(item[0])):
        by_first.setdefault(key[0], []).append((key, kind))
    return by_first


_BY_FIRST = _phrases()


def cues(words: Sequence[str]) -> list[Cue]:
    """The cue phrases among words, from left to right, longest first, none within another."""
    found, place = [], 0
    while place < len(words):
        for phrase, kind in _BY_FIRST.get(words[place], ()):
            if tuple(words[place : place + len(phrase)]) == phrase:
                found.append(Cue(place, place + len(phrase), _side(kind, words, place + len(phrase))))
                place += len(phrase) - 1
                break
        place += 1
    return found


def _side(kind: str, words: Sequence[str], end: int) -> str:
    """Which side a cue that stands on either side means: the right one, unless its clause ends there."""
    if ", " not in kind:
        return kind
    sides = kind.split(", ")
    ends = end >= len(words) or words[end] in (",", ";", ")", "and", "but", "at", "on", "in", "or")
    return next((side for side in sides if side.endswith("before" if ends else "after")), sides[0])


def assertions(words: Sequence[str]) -> list[int]:
    """For each word of a sentence whether it is AFFIRMED, NEGATED, UNCERTAIN or HISTORICAL; 0 for the words of cues."""
    status = [AFFIRMED] * len(words)
    found = cues(words)
    for place, cue in enumerate(found):
        side = cue.kind.partition(" ")[2]
        meant = {"negate": NEGATED, "doubt": UNCERTAIN, "past": HISTORICAL}.get(cue.kind.partition(" ")[0])
        if meant is None:
            continue
        if side in ("after", "both"):
            for index in range(cue.end, _right_end(words, cue, found[place + 1 :])):
                if status[index] == AFFIRMED or (meant == UNCERTAIN and side == "both" and status[index] != NEGATED):
                    status[index] = meant
        if side in ("before", "both"):
            for index in range(_left_end(words, cue, found[:place]), cue.start):
                if status[index] == AFFIRMED or (
                    meant == UNCERTAIN and not (side == "both" and status[index] == NEGATED)
                ):
                    status[index] = meant
    for cue in found:
        if cue.kind != "stop":
            status[cue.start : cue.end] = [0] * (cue.end - cue.start)
    return status


def _right_end(words: Sequence[str], cue: Cue, later: Sequence[Cue]) -> int:
    """Where the scope of a cue to its right ends."""
    limit = len(words)
    for other in later:
        crosses = any(words[index] in (",", "and", "but") for index in range(cue.end, other.start))
        opens = other.kind.endswith(("after", "both"))
        if other.kind == "stop" or (opens and (crosses or other.kind.startswith("negate")) and other.kind != cue.kind):
            limit = other.start
            break
        if opens and crosses and not other.kind.startswith(cue.kind.partition(" ")[0]):
            limit = other.start
            break
    for index in range(cue.end, limit):
        if words[index] in (";", ":"):
            return index
        follows = words[index + 1] if index + 1 < len(words) else ""
        if words[index] == "and" and follows in _NEW and follows not in ("the", "this", "new"):
            return index
        rest = words[index + 1 : limit]
        alone = "," not in rest and "," not in words[cue.end : index]
        begins = index > cue.end and (follows in _NEW or (follows in _NEW_LAST and alone))
        if words[index] == "," and begins and not _LIST.intersection(rest):
            return index
        if words[index] == "with" and index > cue.end and follows in _NEW:
            return index
    return limit


def _left_end(words: Sequence[str], cue: Cue, earlier: Sequence[Cue]) -> int:
    """Where the scope of a cue to its left begins.

    "X, Y and Z are normal" is one list; "X, and the heart is normal" and "X and Y, heart size is normal" are none.
    """
    start = max(0, cue.start - _REACH_BEFORE)
    for other in earlier:
        doubts = other.kind == "doubt after" and cue.kind.startswith("doubt")
        if doubts or other.kind == "stop" or other.kind.endswith(("both", "before")):
            start = max(start, other.end)
    last = max((index for index in range(start, cue.start - 1) if words[index] == ","), default=start)
    listed = "and" in words[last : cue.start] or "or" in words[last : cue.start]
    of_one = words[cue.start] in ("is", "was", "has")
    closed = 0  # parentheses that the way back has entered from behind
    for index in range(cue.start - 1, start - 1, -1):
        closed += (words[index] == ")") - (words[index] == "(")
        if closed < 0:
            return index + 1
        if of_one and words[index] == "and" and words[index + 1] in ("the", "heart"):
            return index + 1
        if words[index] in (";", ":") and index < cue.start - 1:
            return index + 1
        if words[index] == "," and not listed and index < cue.start - 1:
            return index + 1
    return start
