"""Several files with one SOPInstanceUID: one is kept, and whether the others are the same film is told."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from domainseg.data.pacs.scan import Scan
from domainseg.imaging.header import pixel_offset

IDENTICAL = "duplicate_identical"
OTHER_HEADER = "duplicate_other_header"
OTHER_PIXELS = "duplicate_other_pixels"


def find_duplicates(scan: Scan) -> dict[str, tuple[str, str]]:
    """path -> (reason, path of the file that is kept) for every film that is there already under the same UID.

    The first path in order of names is kept. Of films that share a UID, and only of these, the whole file is read:
    identical means the same bytes from the first element to the last, the file meta group before them aside.
    """
    count: Counter[bytes] = Counter()
    for row in scan.rows():
        if not row["problem"]:
            count[_mark(row["values"]["SOPInstanceUID"])] += 1
    several = {mark for mark, times in count.items() if times > 1}
    del count
    if not several:
        return {}
    paths: dict[str, list[str]] = {}
    for row in scan.rows():
        if not row["problem"] and _mark(row["values"]["SOPInstanceUID"]) in several:
            paths.setdefault(row["values"]["SOPInstanceUID"], []).append(row["path"])
    found = {}
    for same in paths.values():
        first, *others = sorted(same)
        kept = _digests(scan.folder / first) if others else ("", "")
        for other in others:
            found[other] = (_compare(kept, _digests(scan.folder / other)), first)
    return found


def _compare(one: tuple[str, str], other: tuple[str, str]) -> str:
    if one == other:
        return IDENTICAL
    return OTHER_HEADER if one[1] == other[1] and one[1] else OTHER_PIXELS


def _digests(path: Path) -> tuple[str, str]:
    """SHA-256 of the header after the file meta group, and of the pixel data to the end of the file."""
    try:
        border = pixel_offset(path)
        with open(path, "rb") as stream:
            head = stream.read(border)
            pixels = hashlib.sha256()
            while piece := stream.read(1 << 20):
                pixels.update(piece)
    except Exception:  # the header was read before; whatever is wrong now, it is not the same film
        return str(path), ""
    return hashlib.sha256(_without_meta(head)).hexdigest(), pixels.hexdigest()


def _without_meta(head: bytes) -> bytes:
    """The header from the element after group 2; group 2 names the program that wrote the file and says no more."""
    if head[128:132] != b"DICM" or head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return head
    return head[144 + int.from_bytes(head[140:144], "little") :]


def _mark(uid: str) -> bytes:
    return hashlib.blake2b(uid.encode(), digest_size=8).digest()
