"""A process that decodes JPEG frames with gdcm, for ``guarded``; run by path, it imports nothing of domainseg.

Each request on standard input is a line of JSON and then the frame's bytes; each answer on standard output is a length
of eight bytes (little endian, 0 when decoding failed) and then the decoded bytes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import gdcm


def decode(frame: bytes, request: dict[str, Any]) -> bytes:
    """Decode one frame; what it is, is in the request (names as in ``guarded``)."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((request["columns"], request["rows"], 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(request["photometric"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if request["samples"] > 1:
        image.SetPlanarConfiguration(request["planar"])
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(request["syntax"])))
    bits = request["bits_stored"]
    image.SetPixelFormat(
        gdcm.PixelFormat(request["samples"], request["bits_allocated"], bits, bits - 1, request["signed"])
    )
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))


def main() -> None:
    """Answer requests until standard input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        request = json.loads(line)
        frame = source.read(request["length"])
        try:
            pixels = decode(frame, request)
        except Exception:
            pixels = b""
        sink.write(len(pixels).to_bytes(8, "little") + pixels)
        sink.flush()


if __name__ == "__main__":
    main()
