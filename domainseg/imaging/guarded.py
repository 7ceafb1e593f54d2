"""gdcm behind a pipe: on damaged JPEG frames it can take the process down, and here that is a process of its own.

gdcm is the only allowed decoder of lossless and 12-bit JPEG, and lossless JPEG is common in radiography. The process is
started at the first such frame (about 0.1 s) and kept.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner

TIMEOUT = 60.0  # seconds for one frame; the largest films take about two

# What pydicom asks of a module that offers a decoder.
DECODER_DEPENDENCIES = dict.fromkeys((uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1), ("gdcm>=3.0.10",))


def is_available(syntax: str) -> bool:
    """Whether ``decode_frame`` takes the transfer syntax."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(frame: bytes, runner: DecodeRunner) -> bytes:
    """Decode one JPEG frame; a pydicom decoding plugin. Raises RuntimeError when gdcm fails, dies or hangs."""
    request = {
        "length": len(frame),
        "rows": runner.rows,
        "columns": runner.columns,
        "samples": runner.samples_per_pixel,
        "planar": runner.planar_configuration if runner.samples_per_pixel > 1 else 0,
        "bits_allocated": runner.bits_allocated,
        "bits_stored": runner.bits_stored,
        "signed": runner.pixel_representation,
        "photometric": str(runner.photometric_interpretation),
        "syntax": str(runner.transfer_syntax),
    }
    return _process.ask(json.dumps(request).encode() + b"\n" + frame)


class _Process:
    """The decoding process of this process; a fork starts its own."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def ask(self, request: bytes) -> bytes:
        with self._lock:
            child = self._start()
            watch = threading.Timer(TIMEOUT, child.kill)
            watch.daemon = True
            watch.start()
            try:
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdin.write(request)
                child.stdin.flush()
                length = int.from_bytes(child.stdout.read(8), "little")
                pixels = child.stdout.read(length)
            except OSError:
                pixels, length = b"", -1
            except BaseException:  # the answer would be taken for that of the next frame
                self.stop()
                raise
            finally:
                watch.cancel()
            if len(pixels) != length:
                self.stop()
            if not length or len(pixels) != length:
                raise RuntimeError("gdcm cannot decode the frame")
            return pixels

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            if self._owner == os.getpid():
                self.stop()
            script = Path(__file__).with_name("gdcm_process.py")
            self._child = subprocess.Popen(
                # -P keeps this folder, whose modules have names of the standard library's, off the import path.
                [sys.executable, "-P", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._owner = os.getpid()
        return self._child

    def stop(self) -> None:
        if self._child is not None and self._owner == os.getpid():
            self._child.kill()
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout):
                try:
                    if stream is not None:
                        stream.close()
                except OSError:  # unsent bytes of a request that the process did not live to read
                    continue
        self._child = None


_process = _Process()
atexit.register(_process.stop)
