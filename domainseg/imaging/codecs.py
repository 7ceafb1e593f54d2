"""Which decoder reads which transfer syntax, and what compressed frames say about themselves.

One decoder for each syntax, the fastest of the allowed ones as measured; no second try with another, since a codec that
is laxer about damage would return another picture.
"""

from __future__ import annotations

import gdcm  # type: ignore[import-untyped]
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner

# gdcm writes to standard error about files that are refused with a reason anyway.
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()

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
    uid.JPEGBaseline8Bit: "gdcm",
    uid.JPEGExtended12Bit: "gdcm",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
}
_TWELVE_BITS = "domainseg"

# What pydicom asks of a module that offers a decoder.
DECODER_DEPENDENCIES = {uid.JPEGExtended12Bit: ("gdcm>=3.0.10",)}


def is_available(syntax: str) -> bool:
    """Whether ``decode_twelve_bits`` can be used; gdcm is a fixed dependency."""
    return syntax in DECODER_DEPENDENCIES


def decode_twelve_bits(frame: bytes, runner: DecodeRunner) -> bytes:
    """Decode a 12-bit JPEG frame (process 4) with gdcm, which pydicom's own gdcm plugin declines to do."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(runner.transfer_syntax))))
    bits = runner.bits_stored
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, runner.pixel_representation))
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))


get_decoder(uid.JPEGExtended12Bit).add_plugin(_TWELVE_BITS, (__name__, "decode_twelve_bits"))


def is_native(syntax: str) -> bool:
    """Whether pixels are stored as they are, without compression of their own."""
    return syntax in NATIVE


def plugin(syntax: str, bits_stored: int) -> str | None:
    """Name of the pydicom decoding plugin, "native" where none is needed, None where there is no decoder."""
    if is_native(syntax):
        return "native"
    if syntax == uid.JPEGExtended12Bit and bits_stored > 8:
        return _TWELVE_BITS
    return _PLUGINS.get(uid.UID(syntax))


def stream_problem(frame: bytes, syntax: str, rows: int, columns: int, samples: int, bits: int) -> str:
    """What in a compressed frame's header contradicts rows, columns, samples or bits allocated; "" when nothing does."""
    if syntax == uid.RLELossless:
        segments = int.from_bytes(frame[:4], "little")
        if segments != samples * -(-bits // 8):
            return f"its RLE frame has {segments} segments instead of {samples * -(-bits // 8)}"
        return ""
    found = _jpeg2000(frame) if uid.UID(syntax) in _JPEG2000 else _jpeg(frame)
    if found is None:
        return "a compressed frame has no readable header"
    if found[:3] != (rows, columns, samples):
        return f"a compressed frame says {found[:3]}, the header (rows, columns, samples) {(rows, columns, samples)}"
    if found[3] > max(bits, 8):
        return f"a compressed frame has {found[3]} bits a sample where {bits} are allocated"
    return ""


_JPEG2000 = frozenset((uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K))
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
