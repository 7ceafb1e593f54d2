"""Training samples: cached planes, truth, and an order that depends on seed and step only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from domainseg.imaging.geometry import Affine
from domainseg.tasks import ranks
from domainseg.tasks.augment import Augmenter


@dataclass(frozen=True)
class Item:
    """One training sample of a stage.

    planes: gives uint16 [P, H, W]; the first ``channels`` are the preprocessed picture (0..1 as 0..65535), the others
        masks (0 or 65535) in the order of ``masks``.
    affine: from pixels of the planes to source pixels.
    truth: labels and points; points are in pixels of the planes.
    """

    image: str
    part: str
    planes: Callable[[], NDArray[np.uint16]]
    affine: Affine
    truth: Mapping[str, Any] = field(default_factory=dict)
    masks: Sequence[str] = ()
    channels: int = 1

    def picture(self) -> NDArray[np.float32]:
        """The preprocessed picture, float32 in 0..1: [H, W], or [H, W, channels] where there are several."""
        planes = self.planes()
        return as_unit(planes[0] if self.channels == 1 else np.moveaxis(planes[: self.channels], 0, -1))

    def mask(self, name: str) -> NDArray[np.bool_] | None:
        """A mask by name, bool [H, W], or None when there is none."""
        if name not in self.masks:
            return None
        return np.asarray(self.planes()[self.channels + list(self.masks).index(name)] > 0)


def as_unit(plane: NDArray[np.uint16]) -> NDArray[np.float32]:
    """uint16 as float32 in 0..1."""
    return np.multiply(plane, np.float32(1 / 65535), dtype=np.float32)


def as_uint16(picture: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 in 0..1 as uint16, rounded."""
    return (np.clip(picture, 0, 1) * 65535 + 0.5).astype(np.uint16)


class StepDataset(Dataset[dict[str, Any]]):
    """Samples by key (draw, index): the same key, the same sample, whatever was drawn before and in which process.

    images: the film of each index, to name it.
    """

    def __init__(self, images: Sequence[str]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)


class ItemDataset(StepDataset):
    """Items, how they are changed, and the seed of what is random beside that."""

    def __init__(self, items: Sequence[Item], augmenter: Augmenter, seed: int = 0) -> None:
        super().__init__([item.image for item in items])
        self.items, self.augmenter, self.seed = items, augmenter, seed


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (draw, index) for a fixed number of steps; the draw number seeds the sample's randomness.

    Each pass visits items in a new order; with ``weights`` items are drawn with replacement instead. What a step
    gets depends on seed and step only, so that a run resumed at ``start`` sees what it would have seen. A batch is that
    of all processes of the run; each gets every size-th sample of it, and makes of it what one process would make.
    """

    def __init__(
        self,
        size: int,
        *,
        steps: int,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
        start: int = 0,
    ) -> None:
        if size == 0:
            raise ValueError("there is nothing to train on")
        if batch_size % ranks.size():
            raise ValueError(f"a batch of {batch_size} does not divide among {ranks.size()} processes")
        self.size, self.steps, self.batch_size, self.seed, self.start = size, steps, batch_size, seed, start
        self.weights = None if weights is None else np.asarray(weights, dtype=float) / float(np.sum(weights))

    def __len__(self) -> int:
        return self.steps  # of the whole fit: Lightning counts the batches before ``start`` as fetched

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            yield list(ranks.share(self.batch(step)))

    def batch(self, step: int) -> list[tuple[int, int]]:
        """What a step gets, in all processes together."""
        draws = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [(draw, self._index(draw)) for draw in draws]

    def _index(self, draw: int) -> int:
        if self.weights is not None:
            return int(np.random.default_rng((self.seed, draw)).choice(self.size, p=self.weights))
        turn, place = divmod(draw, self.size)
        if getattr(self, "_turn", None) != turn:
            self._turn, self._order = turn, np.random.default_rng((self.seed, turn)).permutation(self.size)
        return int(self._order[place])


def balancing(labels: Sequence[int], share: float = 0.5) -> list[float]:
    """Sampling weights that make ``share`` of the draws positive; all equal where one class is missing."""
    flags = np.asarray(labels) == 1
    positive, negative = int(flags.sum()), int((~flags).sum())
    if not positive or not negative:
        return [1.0] * len(labels)
    return [share / positive if flag else (1 - share) / negative for flag in flags]
