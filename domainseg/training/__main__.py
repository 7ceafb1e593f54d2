"""A further process of a training run. Started by the first one (see domainseg/training/processes.py), never by hand.

Its configuration, the run folder and its place come as one line on standard input, which stays open as long as the
first process lives.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path

from domainseg.files import DomainsegError
from domainseg.training.processes import SAID, Place, listen, member
from domainseg.training.run import train_here


def main() -> None:
    """Train; exits with 1 on an error, whose last line on stderr says what it was."""
    cfg, output, place = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format=f"{SAID}%(message)s")
    try:
        here = Place(**place)
        with member(here, cfg["trainer"], listen(here)):
            train_here(cfg, Path(output))
    except DomainsegError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _end_with_the_first() -> None:
    if not os.read(sys.stdin.fileno(), 1):
        os._exit(1)


if __name__ == "__main__":
    main()
