"""Several files with one SOPInstanceUID: one is kept, and whether the others are the same film is told."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from domainseg.data.pacs.scan import Scan
from domainseg.imaging.header import pixel_offset

IDENTICAL = "duplicate_identical"
OTHER_HEADER = "duplicate_other_header"
OTHER_PIXELS = "duplicate_other_pixels"


def find_duplicates(scan: Scan) -> dict[str, tuple[str, str]]:
    """path -> (reason, path of the file that is kept) for every film that is there already under the same UID.

    The file with the most pixel data is kept (another may be a transfer that broke off), of equals the first path.
    Of films that share a UID, and only of these, the whole file is read: identical means the same bytes from the first
    element to the last, the file meta group before them aside.
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
        read = {path: _digests(scan.folder / path) for path in sorted(same)}
        first = max(read, key=lambda path: read[path].length)
        for other in read.keys() - {first}:
            found[other] = (_compare(read[first], read[other]), first)
    return found


class _Digests(NamedTuple):
    """SHA-256 of the header after the file meta group and of the pixel data to the end of the file; bytes of these."""

    header: str
    pixels: str
    length: int


def _compare(one: _Digests, other: _Digests) -> str:
    if one == other:
        return IDENTICAL
    return OTHER_HEADER if one.pixels == other.pixels and one.pixels else OTHER_PIXELS


def _digests(path: Path) -> _Digests:
    try:
        border = pixel_offset(path)
        with open(path, "rb") as stream:
            head = stream.read(border)
            pixels = hashlib.sha256()
            while piece := stream.read(1 << 20):
                pixels.update(piece)
            length = stream.tell() - border
    except Exception:  # the header was read before; whatever is wrong now, it is not the same film
        return _Digests(str(path), "", -1)
    return _Digests(hashlib.sha256(_without_meta(head)).hexdigest(), pixels.hexdigest(), length)


def _without_meta(head: bytes) -> bytes:
    """The header from the element after group 2; group 2 names the program that wrote the file and says no more."""
    if head[128:132] != b"DICM" or head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return head
    return head[144 + int.from_bytes(head[140:144], "little") :]


def _mark(uid: str) -> bytes:
    return hashlib.blake2b(uid.encode(), digest_size=8).digest()
