"""The commands as a user runs them: processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def command(name: str, *argv: str, cwd: Path, code: int = 0) -> str:
    """Run a command in a folder; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"domainseg.{name}", *argv],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr
