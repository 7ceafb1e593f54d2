"""Mask ROI-CNN after Chang et al. 2018 (AJNR 39:1609): a detector with masks on a hybrid 3D/2D feature pyramid.

Anchors, proposals, ROI align and their losses are torchvision's; the backbone, the head for the type and what follows
the heads are ours. Of the numbers only the slab, the pyramid's 128 channels and the mask head's existence are Chang's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image, nms

from domainseg.imaging.hemorrhage import TYPES
from domainseg.networks.base import Network, in_float32, kaiming, pools
from domainseg.networks.hemorrhage import OUTPUTS, RARE
from domainseg.networks.hybrid import STRIDES, HybridPyramid

FLOOR = 0.01  # scores below it are no detections
POOLED, MASK_POOLED = 7, 14  # cells of a box that its heads read
SUPPRESSED = 1e4  # taken off the score of a box that overlaps a better one
Targets = list[dict[str, Tensor]]


class MaskRoiCnn(Network):
    """Boxes of hemorrhage in the middle slice of a slab, their types and masks.

    forward(x), x float [B, windows * slices, H, W] in 0..1, window by window, multiples of 32, K = ``detections``:
      "boxes" [B, K, 4] (x0, y0, x1, y1) in pixels of the picture; "scores" [B, K] probability of hemorrhage, falling,
      0 where there is no detection (and then all else is 0); "labels" [B, K] most likely type (1..5);
      "types" [B, K, 5] its logits; "masks" [B, K, 56, 56] logits of the mask inside the box;
      "presence" [B, 6] logits of any hemorrhage and of each type in the slice (sigmoid each).

    Every output has a fixed shape, whatever is found, so that the exported graph is a plain one.
    anchors: side in pixels at each of STRIDES; ratios: height over width. rpn, box: how anchors and boxes are labelled
    and drawn in training: ``foreground`` and ``background`` are IoU, ``batch`` a number a slab, ``share`` that of the
    foreground. before, proposals: boxes a level that go into the first suppression, and that come out of it.
    nms: IoU above which the weaker proposal, and box, is suppressed. scale: side in pixels of a box whose heads read
    stride 16; one half of it reads stride 8. hidden, mask_width: of the box and the mask head.
    """

    input_size = 160
    multiple = 32
    batch = 1
    exporter = "trace"

    def __init__(
        self,
        slices: int = 5,
        windows: int = 3,
        widths: Sequence[int] = (16, 48, 96, 160, 224),
        modules: int = 2,
        channels: int = 128,
        anchors: Sequence[int] = (8, 16, 32, 64),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn: Mapping[str, Any] = {"foreground": 0.45, "background": 0.2, "batch": 64, "share": 0.5},
        box: Mapping[str, Any] = {"foreground": 0.4, "background": 0.3, "batch": 16, "share": 0.5},
        before: int = 128,
        proposals: int = 64,
        nms: Mapping[str, float] = {"proposals": 0.7, "boxes": 0.5},
        scale: float = 112.0,
        hidden: int = 256,
        mask_width: int = 64,
        detections: int = 16,
    ) -> None:
        super().__init__()
        if len(widths) != len(STRIDES) + 1 or len(anchors) != len(STRIDES):
            raise ValueError(
                f"MaskRoiCnn: widths={list(widths)}, anchors={list(anchors)}: widths are those at stride 2 and the "
                f"pyramid's strides {list(STRIDES)}, anchors one side for each of the latter."
            )
        if detections > proposals:
            raise ValueError(f"MaskRoiCnn: detections={detections} must not exceed proposals={proposals}.")
        self.channels, self.detections = slices * windows, detections
        self.pyramid = HybridPyramid(slices, windows, widths, modules, channels)
        kaiming(self.pyramid)
        anchor = Anchors(tuple((side,) for side in anchors), (tuple(ratios),) * len(anchors))
        self.rpn = Proposals(anchor, RPNHead(channels, len(ratios)), rpn, before, proposals, nms["proposals"])
        self.roi = Heads(channels, box, nms["boxes"], scale, hidden, mask_width)
        self.presence = nn.Linear(2 * widths[-1], OUTPUTS)
        self.dense = nn.Conv2d(channels, 1, 1)  # for training only: where blood is, at the finest level
        nn.init.normal_(self.dense.weight, std=0.01)
        assert self.dense.bias is not None
        nn.init.constant_(self.dense.bias, RARE)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels, deepest = self.pyramid(self.prepare(x))
        proposals, _ = self.rpn(_images(x), _named(levels))
        with roi_align_kernel(x):
            found = self.roi.detect(_named(levels), proposals, _shape(x), self.detections)
        return {**found, "presence": in_float32(self.presence, pools(deepest))}

    def detection_losses(
        self, x: Tensor, targets: Targets, outlined: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Outputs of all slabs for further losses, the losses of the detector on slabs with masks, and of how many.

        targets: for each slab boxes [n, 4], labels [n] (1), types [n] (1..5, 0 unknown) and masks uint8 [n, H, W].
        outlined: bool [B], whether a slab's targets say everything; where none does, the losses are 0 and everything
        still has a gradient.
        Each loss is a mean; the last dict tells over how many boxes (of anchors: slabs, which have as many each), so
        that several processes can be put together.
        Outputs: "presence" as of ``forward``, "dense" [B, H / 4, W / 4] logits of blood at the finest level.
        """
        levels, deepest = self.pyramid(self.prepare(x))
        outputs = {
            "presence": in_float32(self.presence, pools(deepest)),
            "dense": in_float32(self.dense, levels[0])[:, 0],
        }
        chosen = outlined.nonzero()[:, 0] if outlined.any() else torch.zeros(1, dtype=torch.long, device=x.device)
        features = _named([level[chosen] for level in levels])
        wanted = [targets[int(k)] for k in chosen]
        proposals, losses = self.rpn(_images(x[: len(chosen)]), features, wanted)  # only their number and size count
        with roi_align_kernel(x):
            of_boxes, counts = self.roi.losses(features, proposals, _shape(x), wanted)
        losses |= of_boxes
        counts |= dict.fromkeys(("objectness", "anchor"), torch.tensor(len(chosen), device=x.device))
        there = outlined.any()
        return (
            outputs,
            {name: loss * there for name, loss in losses.items()},
            {name: count * there for name, count in counts.items()},
        )


class BoxesAndOutlines(Network):
    """Two networks on the same slabs: one finds the boxes, the other outlines and says what the slice shows.

    forward(x) as of both: "boxes", "scores", "labels", "types" and "masks" of ``detector``, "mask" and "presence" of
    ``outliner``.
    """

    batch = 1
    exporter = "trace"

    def __init__(self, detector: MaskRoiCnn, outliner: Network, slices: int = 5, windows: int = 3) -> None:
        super().__init__()
        if not slices * windows == detector.channels == outliner.channels:
            raise ValueError(
                f"BoxesAndOutlines: slices={slices}, windows={windows}, but its networks take {detector.channels} and "
                f"{outliner.channels} channels; all must agree."
            )
        self.channels = slices * windows
        self.multiple = max(detector.multiple, outliner.multiple)
        self.input_size = outliner.input_size
        self.detector, self.outliner = detector, outliner

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.prepare(x)  # for its checks; each network centres by itself
        return {**self.detector(x), **self.outliner(x)}


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """torchvision's anchors, laid out outside of a graph that is traced: there they are weights, no computation."""

    def grid_anchors(self, grid_sizes: Sequence[Sequence[int]], strides: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """[rows * columns * anchors, 4] of each level, in pixels of the picture."""
        found = []
        for (rows, columns), (down, right), cell in zip(grid_sizes, strides, self.cell_anchors, strict=True):
            y, x = np.mgrid[: int(rows), : int(columns)] * np.reshape([int(down), int(right)], (2, 1, 1))
            places = np.stack([x, y, x, y], -1).reshape(-1, 1, 4) + cell.cpu().numpy()
            found.append(torch.from_numpy(places.reshape(-1, 4)).to(cell))
        return found


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's region proposals, with a fixed number of boxes a picture, in training and elsewhere."""

    def __init__(
        self, anchors: AnchorGenerator, head: nn.Module, labels: Mapping[str, Any], before: int, count: int, iou: float
    ) -> None:
        counts = {"training": before, "testing": before}, {"training": count, "testing": count}
        super().__init__(
            anchors,
            head,
            labels["foreground"],
            labels["background"],
            labels["batch"],
            labels["share"],
            *counts,
            nms_thresh=iou,
        )

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: Targets | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Boxes [count, 4] of each picture, and the losses "objectness" and "anchor" where there are targets."""
        levels = list(features.values())
        logits, deltas = self.head(levels)
        anchors = self.anchor_generator(images, levels)
        sizes = [int(level.shape[1] * level.shape[2] * level.shape[3]) for level in logits]
        scores, moves = concat_box_prediction_layers(
            [each.float() for each in logits], [each.float() for each in deltas]
        )
        boxes = self.box_coder.decode(moves.detach(), anchors).reshape(len(anchors), -1, 4)
        kept, _ = self.filter_proposals(boxes, scores, images.image_sizes, sizes)
        if targets is None:
            return kept, {}
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        wanted = self.box_coder.encode(matched, anchors)
        objectness, anchor = self.compute_loss(scores, moves, labels, wanted)
        return kept, {"objectness": objectness, "anchor": anchor}

    def filter_proposals(
        self, proposals: Tensor, objectness: Tensor, image_shapes: Sequence[tuple[int, int]], counts: Sequence[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The strongest of each level, then of all; where suppression leaves too few, suppressed ones fill up."""
        objectness = objectness.detach().reshape(len(image_shapes), -1)
        found = []
        for boxes, scores, shape in zip(proposals, objectness, image_shapes, strict=True):
            boxes = clip_boxes_to_image(boxes, shape)
            best = []
            for start, count in zip(_starts(counts), counts, strict=True):
                best.append(start + scores[start : start + count].topk(min(count, self.pre_nms_top_n())).indices)
            chosen = torch.cat(best)
            boxes, scores = boxes[chosen], scores[chosen]
            top, strength = strongest(boxes, scores, self.nms_thresh, self.post_nms_top_n())
            found.append((boxes[top], strength))
        return [boxes for boxes, _ in found], [strength for _, strength in found]


@contextmanager
def roi_align_kernel(x: Tensor) -> Iterator[None]:
    """Have ROI align done by its kernel on a graphics card, too, where deterministic algorithms are asked for.

    There torchvision would compile a function of its own, again for every new number of boxes: on an H100 ten steps did
    not end in half a minute, sixty steps with the kernel did. Its gradient is not the same bit by bit from run to run,
    of which torch warns.
    """
    asked, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if asked and x.is_cuda:
        torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warn)


class Heads(RoIHeads):  # type: ignore[misc]
    """torchvision's ROI heads for one class, with one for the type beside them."""

    def __init__(
        self, channels: int, labels: Mapping[str, Any], iou: float, scale: float, hidden: int, mask_width: int
    ) -> None:
        names = [str(stride) for stride in STRIDES]
        super().__init__(
            MultiScaleRoIAlign(names, POOLED, 2, canonical_scale=scale),
            TwoMLPHead(channels * POOLED**2, hidden),
            None,
            labels["foreground"],
            labels["background"],
            labels["batch"],
            labels["share"],
            None,
            FLOOR,
            iou,
            0,
            MultiScaleRoIAlign(names, MASK_POOLED, 2, canonical_scale=scale),
            nn.Sequential(
                nn.Conv2d(channels, mask_width, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(mask_width, mask_width, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.ConvTranspose2d(mask_width, mask_width, 2, stride=2),
                nn.ReLU(inplace=True),
                nn.ConvTranspose2d(mask_width, mask_width // 2, 2, stride=2),
                nn.ReLU(inplace=True),
            ),
            nn.Conv2d(mask_width // 2, 1, 1),
        )
        kaiming(self.mask_head)
        self.score = nn.Linear(hidden, 2)  # background, hemorrhage
        self.refine = nn.Linear(hidden, 2 * 4)
        self.types = nn.Linear(hidden, len(TYPES))

    def losses(
        self, features: dict[str, Tensor], proposals: list[Tensor], shape: tuple[int, int], targets: Targets
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses "class", "box", "mask" and "type" (unknown types do not count) of boxes drawn from the proposals.

        And over how many boxes each is a mean.
        """
        boxes, matched, labels, wanted = self.select_training_samples(proposals, targets)
        shapes = [shape] * len(boxes)
        x = self.box_head(self.box_roi_pool(features, boxes, shapes))
        scored, refined = fastrcnn_loss(in_float32(self.score, x), in_float32(self.refine, x), labels, wanted)
        blood = [label > 0 for label in labels]
        inside = [each[chosen] for each, chosen in zip(boxes, blood, strict=True)]
        number = [each[chosen] for each, chosen in zip(matched, blood, strict=True)]
        one = [torch.zeros_like(target["labels"]) for target in targets]
        masks = maskrcnn_loss(self._masks(features, inside, shape), inside, [t["masks"] for t in targets], one, number)
        types = torch.cat([target["types"][each] for target, each in zip(targets, number, strict=True)])
        wrong = F.cross_entropy(
            in_float32(self.types, x[torch.cat(blood)]), types - 1, ignore_index=-1, reduction="sum"
        )
        losses = {"class": scored, "box": refined, "mask": masks, "type": wrong / (types > 0).sum().clamp(min=1)}
        drawn, found = torch.cat(labels), torch.cat(blood)
        every = torch.tensor(len(drawn), device=drawn.device)
        return losses, {"class": every, "box": every, "mask": found.sum(), "type": (types > 0).sum()}

    def detect(
        self, features: dict[str, Tensor], proposals: list[Tensor], shape: tuple[int, int], count: int
    ) -> dict[str, Tensor]:
        """The ``count`` strongest boxes of each picture and what is in them, padded with zeros.

        proposals: as many [n, 4] for each picture.
        """
        x = self.box_head(self.box_roi_pool(features, proposals, [shape] * len(proposals)))
        logits = in_float32(self.score, x)
        refined = clip_boxes_to_image(self.box_coder.decode(in_float32(self.refine, x), proposals)[:, 1], shape)
        # By logits: probabilities near 1 are equal in float32, and the order of equals differs between runtimes.
        of_pictures = (each.chunk(len(proposals)) for each in (refined, logits[:, 1] - logits[:, 0]))
        found = [strongest(boxes, scores, self.nms_thresh, count) for boxes, scores in zip(*of_pictures, strict=True)]
        chosen = torch.cat([k * len(proposals[0]) + indices for k, (indices, _) in enumerate(found)])
        boxes, types = refined[chosen], in_float32(self.types, x)[chosen]
        scores = torch.cat([strength for _, strength in found]).sigmoid()
        there = (scores >= self.score_thresh).float()
        outputs = {
            "boxes": boxes * there[:, None],
            "scores": scores * there,
            "labels": (types.argmax(1) + 1) * there,
            "types": types * there[:, None],
            "masks": self._masks(features, list(boxes.split(count)), shape)[:, 0] * there[:, None, None],
        }
        return {name: each.unflatten(0, (len(proposals), count)) for name, each in outputs.items()}

    def _masks(self, features: dict[str, Tensor], boxes: list[Tensor], shape: tuple[int, int]) -> Tensor:
        """Mask logits [boxes, 1, 56, 56]."""
        pooled = self.mask_roi_pool(features, boxes, [shape] * len(boxes))
        return in_float32(self.mask_predictor, self.mask_head(pooled))


def strongest(boxes: Tensor, scores: Tensor, iou: float, count: int) -> tuple[Tensor, Tensor]:
    """Indices and scores of the ``count`` strongest boxes that are not suppressed by a stronger one.

    Where fewer are left, suppressed ones follow; their scores are below -SUPPRESSED / 2. So the number is fixed, and
    nothing that is exported depends on how many there are but one tensor of indices.
    """
    kept = nms(boxes, scores, iou)
    free = torch.zeros_like(scores).scatter(0, kept, torch.ones_like(kept, dtype=scores.dtype))
    top = torch.where(free > 0, scores, scores - SUPPRESSED).topk(count)
    return top.indices, top.values


def _images(x: Tensor) -> ImageList:
    return ImageList(x, [_shape(x)] * int(x.shape[0]))


def _shape(x: Tensor) -> tuple[int, int]:
    """Height and width as plain numbers, also while a graph is traced."""
    return int(x.shape[-2]), int(x.shape[-1])


def _named(levels: Sequence[Tensor]) -> dict[str, Tensor]:
    """Levels by their stride, in float32: places in pixels need it."""
    return {str(stride): level.float() for stride, level in zip(STRIDES, levels, strict=True)}


def _starts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:k]) for k in range(len(counts))]
