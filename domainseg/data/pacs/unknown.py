"""Categories that no rule fits: told by name where these are names of things, counted where they may be people's."""

from __future__ import annotations

from collections import Counter

from domainseg.data.pacs.films import Films
from domainseg.data.pacs.scan import Scan
from domainseg.data.pacs.targets import UNKNOWN_CATEGORY, Gatherer, bare_name
from domainseg.data.pacs.withhold import Withhold

_OFTEN = 2  # annotations that have a name: what stands there once may be a remark
_SHOWN = 10  # names in one line
_LONGEST = 40  # letters; what is longer is a remark


def unknown_categories(gathered: Gatherer, found: Scan, films: Films) -> str:
    """The categories that no rule fits, most frequent first and as rules see them, for a warning; "" without any.

    A name that occurs once, is long, or would be withheld in a cell of the images table (see Withhold) is counted only.
    """
    out = [(bare_name(shape.name), image) for shape, image, reason in gathered.out if reason == UNKNOWN_CATEGORY]
    counts = Counter(name for name, _ in out)
    hidden = _telling(out, found, films)
    shown = [
        name
        for name, count in counts.most_common()
        if count >= _OFTEN and 0 < len(name) <= _LONGEST and name.isprintable() and name not in hidden
    ][:_SHOWN]
    told = [f"{name} ({counts[name]})" for name in shown]
    if rest := len(counts) - len(shown):
        among = sum(count for name, count in counts.items() if name not in shown)
        told.append(f"{rest} {'more' if shown else 'names'} that are not shown ({among})")
    return ", ".join(told)


def _telling(out: list[tuple[str, str]], found: Scan, films: Films) -> frozenset[str]:
    """The names that hold a word or a number of the patient on whose film they stand."""
    if not out:
        return frozenset()
    by_image: dict[str, set[str]] = {}
    for name, image in out:
        by_image.setdefault(image, set()).add(name)
    image_of = dict(zip(films.paths["path"], films.paths["image"], strict=True))
    group_of = dict(zip(films.images["image"], films.images["group"], strict=True))
    withhold = Withhold()
    for row in found.rows():
        image = image_of.get(row["path"], "")
        for name in by_image.get(image, ()):
            withhold.see({"category": name}, row["values"], group_of[image])
    return withhold.values()
