"""Keyed hashes: who is who stays with the holder of the key, and the same patient stays the same."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from domainseg.data.tables import ManifestError
from domainseg.files import atomic_path

PRIVATE = "private"  # folder beside a manifest or a run, mode 700


def patient_key(path: Path | str | None, output: Path | str) -> bytes:
    """The key for hashing patients: read from ``path`` (key=FILE), otherwise made anew in output/private/patient.key.

    A key beside the output that is there already is used again, so that a resumed run keeps its names. The file holds
    64 hex digits and is readable by its owner only (mode 600); it is needed to find a patient again and is never
    copied. Raises ManifestError when the file is missing, malformed or readable by others.
    """
    if path is not None:
        return _read_key(Path(path))
    folder = private_folder(output)
    file = folder / "patient.key"
    if not file.exists():
        made = folder / f"patient-{secrets.token_hex(4)}.key"
        with private_path(made) as temporary:
            temporary.write_text(secrets.token_hex(32) + "\n")
        with suppress(FileExistsError):  # whole or not there, and the first of several processes' keys stays
            os.link(made, file)
        made.unlink()
    return _read_key(file)


def private_folder(output: Path | str) -> Path:
    """output/private, made when it is missing; only its owner may look into it (mode 700), and git ignores it."""
    folder = Path(output) / PRIVATE
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    if not (ignored := folder / ".gitignore").exists():
        with private_path(ignored) as temporary:
            temporary.write_text("*\n")
    return folder


@contextmanager
def private_path(path: Path | str) -> Iterator[Path]:
    """Like ``atomic_path``; the file is readable by its owner only (mode 600) before anything stands in it."""
    with atomic_path(path) as temporary:
        temporary.chmod(0o600)
        yield temporary


def keyed_hash(key: bytes, kind: str, *values: str) -> str:
    """16 hex digits of HMAC-SHA-256 over a kind (image, patient, study, ...) and its values; "" when the last is ""."""
    if not values[-1]:
        return ""
    text = json.dumps([kind, *values])  # a list: ("a", "bc") and ("ab", "c") stay apart
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:16]


def _read_key(file: Path) -> bytes:
    try:
        text = file.read_text().strip()
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"key={file}: cannot be read ({type(error).__name__})") from error
    if mode & 0o077:
        raise ManifestError(f"key={file}: others may read it; run: chmod 600 '{file}'")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) < 32:
        raise ManifestError(f"key={file}: a key is 64 hex digits or more on one line")
    return key


def hash_patient(site: str, patient: str, key: bytes) -> str:
    """A patient, the pair (site, patient), as 16 hex digits of HMAC-SHA-256; "" (unknown) stays ""."""
    return keyed_hash(key, "patient", site, patient)


def hash_patients(images: pd.DataFrame, key: bytes) -> pd.Series:
    """The column ``patient`` of a prediction table for the images table of a manifest.

    A film of an unknown patient gets a hash of its group instead, so that intervals can still tell who belongs
    together; with neither it is "".
    """
    rows = zip(images["site"], images["patient"], images["group"], strict=True)
    hashed = [hash_patient(site, patient, key) or hash_patient("group", group, key) for site, patient, group in rows]
    return pd.Series(hashed, index=images.index, name="patient", dtype=str)
