"""What the predict command runs, a bundle or a run folder; known before pandas is, so that a worker can load early."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.bundle.load import check_envelope, check_precision, load_stages, make_stages
from domainseg.bundle.override import overrides_of, told
from domainseg.bundle.schema import BundleError
from domainseg.bundle.verify import verify_bundle
from domainseg.cascade.stages import Stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """What predicts, a bundle or a run folder.

    load: makes the stages in a worker process (it travels there: a function of a module, or a partial of one).
    stages: the same without networks, for the table. identity: what a journal must agree with. envelope: of a bundle.
    columns: constant columns of the table.
    """

    load: Callable[[], Sequence[Stage]]
    stages: Sequence[Stage]
    identity: Mapping[str, Any]
    envelope: Mapping[str, Any] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def bundle_model(cfg: Mapping[str, Any]) -> Model:
    """The model of ``bundle=``. Raises BundleError."""
    path, backend, precision = Path(cfg["bundle"]), str(cfg["backend"]), str(cfg["precision"])
    verified = verify_bundle(path)
    check_precision(verified.record, path, backend, precision)
    check_envelope(verified.record)
    overrides = [told(entry) for entry in overrides_of(verified.record)]
    for line in overrides:
        log.warning("threshold set anew on local cases: %s", line)
    made = {"overrides": overrides} if overrides else {}
    return Model(
        load=partial(load_stages, path, verified.sha256, backend, precision, threads_a_worker(cfg)),
        stages=make_stages(verified.record, dict.fromkeys(verified.models, _elsewhere)),
        identity={"bundle": verified.sha256, "backend": backend, "precision": precision, **made},
        envelope=verified.record["envelope"],
        columns={"bundle_sha256": verified.sha256},
    )


def threads_a_worker(cfg: Mapping[str, Any]) -> int:
    """Compute threads of one worker: as set, or its share of this process's cores."""
    if cfg["threads"] is not None:
        return int(cfg["threads"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, int(cfg["workers"])))


def _elsewhere(pictures: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
    raise BundleError("networks run in worker processes")
