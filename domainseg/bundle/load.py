"""Load a bundle: verified, its stages ready to run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from domainseg.bundle.runtime import BACKENDS, PRECISIONS, open_network
from domainseg.bundle.schema import RECORD, BundleError, reads_of
from domainseg.bundle.verify import verify_bundle
from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.decisions import DECISIONS
from domainseg.cascade.operations import Sample, picture_shape
from domainseg.cascade.reads import FILMS, VOLUMES, Reading, reading_of
from domainseg.cascade.stages import Frozen, Network, Stage
from domainseg.imaging import Film
from domainseg.imaging.volume import Volume

# What bf16 must show against fp32 before it may run; held against the figures at export and again on load.
BF16_AUC_CHANGE = 0.002  # largest change of an AUC
BF16_FLIPPED = 0.002  # largest share of decisions at the threshold that turn out otherwise
NOT_MEASURED = "not_measured"  # what ``flags`` says for a bundle without an envelope
BF16_ENOUGH = 100  # cases with which a stage, or the cascade, can be judged (our choice)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its stages in order, what bundle.json says, and the SHA-256 that identifies its content."""

    stages: list[Stage]
    record: dict[str, Any]
    sha256: str

    def predict(self, film: Film | Volume | Path | str, image: str | None = None) -> list[dict[str, Any]]:
        """The rows of one film or volume as in the prediction table, without metadata and truth.

        film: what the bundle is for, or its path, which for a volume may be a folder; image: what the rows call it, by
        default the name of its file or folder. Of a volume ``lesions`` holds its rows of the table of lesions. Raises
        ImageReadError for what cannot be read, and BundleError for a film where volumes are meant and the reverse.
        """
        reading = reading_of(self.stages)
        if isinstance(film, (Film, Volume)):
            if not isinstance(film, type(reading.blank())):
                raise BundleError(f"this bundle is for {reading.plural}, a {type(film).__name__} was given")
        else:
            image = Path(os.path.abspath(film)).name if image is None else image
            film = reading.read(Path(film), None)
        image = image or reading.name
        rows = reading.rows(image, film, Cascade(self.stages).run(Case.of(image, film)), None)
        targets = {target: number for stage in self.stages for target, number in stage.thresholds.items()}
        constant: dict[str, Any] = {f"threshold_{target}": number for target, number in targets.items()}
        constant |= {"outside": flags(film, self.record["envelope"]), "bundle_sha256": self.sha256}
        scores = {f"score_{target}": float("nan") for target in targets}
        return [{"excluded_by": "", "exclusion_reason": "", **scores, **row, **constant} for row in rows]


def load_bundle(
    path: Path | str, *, backend: str = "onnxruntime", precision: str = "fp32", threads: int | None = None
) -> Bundle:
    """Load and verify the bundle in the folder ``path``. Raises BundleError; needs no torch.

    backend: onnxruntime, or openvino (an extra). precision: fp32, or bf16 (openvino; stages that were checked at export
    compute in bf16, the others in fp32). threads: compute threads, None for all cores.
    """
    verified = verify_bundle(Path(path))
    record = verified.record
    check_precision(record, path, backend, precision)
    check_envelope(record)
    networks: dict[str, Network] = {
        stage["name"]: open_network(
            verified.models[stage["name"]],
            stage,
            verified.graphs[stage["name"]].batch_name,
            backend=backend,
            precision=precision if bf16_passed(stage) else "fp32",
            threads=threads,
        )
        for stage in record["stages"]
    }
    return Bundle(make_stages(record, networks), record, verified.sha256)


def load_stages(path: Path, sha256: str, backend: str, precision: str, threads: int) -> list[Stage]:
    """The stages of the bundle that had this SHA-256 a moment ago. Raises BundleError when it is another now."""
    bundle = load_bundle(path, backend=backend, precision=precision, threads=threads)
    if bundle.sha256 != sha256:
        raise BundleError(f"{path}: was replaced while films were predicted; begin anew")
    return bundle.stages


def make_stages(record: Mapping[str, Any], networks: Mapping[str, Network]) -> list[Stage]:
    """The stages that a checked record describes, with their networks. Raises BundleError."""
    stages = []
    for stage in record["stages"]:
        settings = dict(stage["decision"])
        kind = settings.pop("kind")
        del settings["version"]
        try:
            decision = DECISIONS[kind](**settings)
        except TypeError:
            raise BundleError(
                f"{RECORD}: stages.{stage['name']}.decision: {kind} knows no such setting: {', '.join(settings)}"
            ) from None
        frozen = Frozen(**stage["frozen"])
        stages.append(Stage(stage["name"], stage["preprocessing"], decision, networks[stage["name"]], frozen))
        check_decision(stages[-1], stage["outputs"], reading_of(stages))
    if record["target"] not in (targets := [stage.decision.target for stage in stages]):
        raise BundleError(f"{RECORD}: target: {record['target']} is decided by no stage; they decide {targets}")
    return stages


def check_decision(stage: Stage, outputs: Mapping[str, Any], reading: Reading) -> None:
    """Raise BundleError for a stage that cannot decide on the outputs that the record declares, by a blank film."""
    case = Case.of("blank", reading.blank())
    pictures = np.zeros((1, *picture_shape(stage.preprocessing)), np.float32)
    sample = Sample(pictures if isinstance(case.film, Volume) else pictures[0, 0], case.affine)
    # They rise along their last side, so that boxes have an extent.
    rising = {name: np.arange(shape[-1] if shape else 1, dtype=np.float32) for name, shape in outputs.items()}
    answers = {name: sample.own(np.broadcast_to(rising[name], (1, *shape))) for name, shape in outputs.items()}
    try:
        stage.decision.logits(answers)
        stage.decision.decide(case, sample, answers, Frozen(threshold=-1.0))
    except (KeyError, IndexError, TypeError, ValueError, cv2.error) as error:
        reason = " ".join(str(error).split())
        raise BundleError(
            f"{RECORD}: stages.{stage.name}: its decision cannot be made of the outputs {', '.join(outputs)} "
            f"({type(error).__name__}: {reason})"
        ) from None


def check_precision(record: Mapping[str, Any], path: Path | str, backend: str, precision: str) -> None:
    """Raise BundleError for a backend or precision that is unknown, or that this bundle was not checked for."""
    if backend not in BACKENDS:
        raise BundleError(f"backend={backend}: known are {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise BundleError(f"precision={precision}: known are {', '.join(PRECISIONS)}")
    if precision == "bf16" and backend != "openvino":
        raise BundleError(f"precision=bf16 needs backend=openvino: {backend} computes in fp32")
    if precision == "bf16" and not (bf16_passed(record) and any(bf16_passed(stage) for stage in record["stages"])):
        raise BundleError(
            f"{path}: precision=bf16: this bundle has not passed the check of bf16, cascade and stages; "
            "export it with check=bf16, or use precision=fp32"
        )


def bf16_passed(entry: Mapping[str, Any]) -> bool:
    """Whether an entry, a stage's or the cascade's, holds figures of bf16 that pass: a word alone is none."""
    found = entry.get("bf16")
    if not isinstance(found, dict) or found.get("passed") is not True:
        return False
    figures = [found.get(name, np.nan) for name in ("n", "flipped", "auc_change")]
    if figures[2] is None:  # films of one class only
        figures[2] = 0
    if not all(isinstance(figure, (int, float)) for figure in figures):
        return False
    n, flipped, change = figures
    return bool(n >= BF16_ENOUGH and 0 <= flipped <= BF16_FLIPPED and abs(change) <= BF16_AUC_CHANGE)


def check_envelope(record: Mapping[str, Any]) -> None:
    """Raise BundleError for an envelope that no film, or no volume, can be held against."""
    blank = (VOLUMES if reads_of(record) == VOLUMES.name else FILMS).blank()
    try:
        flags(blank, record["envelope"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BundleError(f"{RECORD}: envelope: cannot be used ({type(error).__name__})") from None


def flags(film: Film | Volume, envelope: Mapping[str, Any]) -> str:
    """In which respects a film or volume lies outside of what the bundle is for, joined by semicolons; "" if inside.

    NOT_MEASURED where the bundle has no envelope.
    """
    from domainseg.bundle.envelope import outside

    return ";".join(outside(film, envelope)) if envelope else NOT_MEASURED
