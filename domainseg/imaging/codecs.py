"""Which decoder reads which transfer syntax, and what compressed frames say about themselves.

One decoder for each syntax, the fastest of the allowed ones as measured; no second try with another, since a codec
that is laxer about damage would return another picture. gdcm runs in a process of its own (``guarded``), so 8-bit
JPEG, which Pillow reads as fast and safely, is Pillow's.
"""

from __future__ import annotations

from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

from domainseg.imaging import guarded

NATIVE = frozenset(
    (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    )
)
_PLUGINS = {
    uid.RLELossless: "pylibjpeg",
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "guarded gdcm",
    uid.JPEGLossless: "guarded gdcm",
    uid.JPEGLosslessSV1: "guarded gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
}

for _syntax in guarded.DECODER_DEPENDENCIES:
    get_decoder(_syntax).add_plugin("guarded gdcm", (guarded.__name__, "decode_frame"))


def is_native(syntax: str) -> bool:
    """Whether pixels are stored as they are, without compression of their own."""
    return syntax in NATIVE


def plugin(syntax: str) -> str | None:
    """Name of the pydicom decoding plugin, "" where none is needed, None where there is no decoder."""
    if is_native(syntax):
        return ""
    return _PLUGINS.get(uid.UID(syntax))


def stream_problem(frame: bytes, syntax: str, rows: int, columns: int, samples: int, bits: int) -> str:
    """What in a compressed frame's own header contradicts the DICOM header; "" when nothing does."""
    if syntax == uid.RLELossless:
        segments = int.from_bytes(frame[:4], "little")
        if segments != samples * -(-bits // 8):
            return f"its RLE frame has {segments} segments instead of {samples * -(-bits // 8)}"
        return ""
    if _END not in frame[-16:]:
        return "a compressed frame has no end: cut off"
    found = _jpeg2000(frame) if uid.UID(syntax) in _JPEG2000 else _jpeg(frame)
    if found is None:
        return "a compressed frame has no readable header"
    if found[:3] != (rows, columns, samples):
        return f"a compressed frame says {found[:3]}, the header (rows, columns, samples) {(rows, columns, samples)}"
    if found[3] > max(bits, 8):
        return f"a compressed frame has {found[3]} bits a sample where {bits} are allocated"
    return ""


_JPEG2000 = frozenset((uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K))
_END = b"\xff\xd9"  # the same in JPEG, JPEG-LS and JPEG 2000; padding may follow
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


def _jpeg(frame: bytes) -> tuple[int, int, int, int] | None:
    """(rows, columns, components, bits) from the frame header of JPEG (ITU-T T.81) or JPEG-LS (T.87)."""
    if frame[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _FRAME_MARKERS:
            rows, columns = (int.from_bytes(frame[position + at : position + at + 2], "big") for at in (5, 7))
            return rows, columns, frame[position + 9], frame[position + 4]
        else:
            position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def _jpeg2000(frame: bytes) -> tuple[int, int, int, int] | None:
    """The same from the SIZ segment of JPEG 2000 (ITU-T T.800, A.5.1), bare or inside JP2 boxes."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(frame) < start + 43:
        return None
    right, bottom, left, top = (int.from_bytes(frame[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    components = int.from_bytes(frame[start + 40 : start + 42], "big")
    return bottom - top, right - left, components, (frame[start + 42] & 0x7F) + 1
