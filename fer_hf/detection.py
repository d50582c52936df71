"""Finding faces in a photo: a small protocol, and MTCNN behind it.

The three networks and their weights are those of facenet-pytorch (MIT; Zhang et al., "Joint face detection and
alignment using multi-task cascaded convolutional networks", arXiv 1604.02878). The wiring is our own, because the
package's fails on tiny images, distorts faces at the photo's edge and is slower: here each stage reads its windows in
one call from a pyramid of halved copies, and the convolutions run in channels-last order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.ops import box_iou, nms, roi_align

from .faces import Face, area_xyxy

PYRAMID_STEP = 0.709  # of the paper: each level has half the pixels of the one before
PNET_CELL_PX, PNET_STRIDE_PX = 12, 2
RNET_PX, ONET_PX = 24, 48
STEADYING_SHIFTS = ((0.0, 0.0), (0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05))  # of the window's side
MAX_PROPOSALS = 768  # windows of one photo that reach the second network; bounds the time that noise can cost


@dataclass(frozen=True)
class Detection:
    """The faces of one photo, largest first, and how many more were found than the cap allows."""

    faces: tuple[Face, ...]
    skipped: int = 0


class FaceDetector(Protocol):
    """What recognition needs of a detector."""

    def detect(self, image: Image.Image) -> Detection:
        """The faces of an upright RGB image in its own pixels; an empty tuple where there are none."""
        ...


class RefiningDetector(FaceDetector, Protocol):
    """A detector that can also look again at places where faces were a moment ago; tracking needs it."""

    def refine(self, image: Image.Image, faces: Sequence[Face]) -> tuple[Face | None, ...]:
        """For each face its new place near the old one, or None where none is seen any more."""
        ...


class MTCNNDetector:
    """MTCNN on a bounded copy of the photo.

    The smallest face looked for is the larger of ``min_face_px`` and ``min_face_share`` of the photo's size (the square
    root of its area), which keeps the cost per photo the same from one megapixel on. ``thresholds`` are the scores, in
    [0, 1], that a window needs to pass each of the three networks. Of more than ``max_faces`` the largest are kept.
    A photo of more than ``max_pixels`` (full HD fits) is shrunk to that; boxes are always in the photo's own pixels.
    ``keep_threshold`` is the lower score at which ``refine`` still holds on to a face that it is given.
    """

    def __init__(
        self,
        *,
        device: str | torch.device = "cpu",
        min_face_px: float = 20.0,
        min_face_share: float = 0.025,
        thresholds: tuple[float, float, float] = (0.7, 0.7, 0.8),
        max_faces: int = 100,
        max_pixels: int = 2_100_000,
        keep_threshold: float = 0.5,
    ) -> None:
        _require_settings(min_face_px, min_face_share, (*thresholds, keep_threshold), max_faces, max_pixels)
        from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

        self.device = torch.device(device)
        self.min_face_px, self.min_face_share = min_face_px, min_face_share
        self.thresholds, self.keep_threshold = thresholds, keep_threshold
        self.max_faces, self.max_pixels = max_faces, max_pixels
        self._pnet, self._rnet, self._onet = (
            net().eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)
            for net in (PNet, RNet, ONet)
        )

    @torch.inference_mode()
    def detect(self, image: Image.Image) -> Detection:
        """The faces of an RGB image, largest first, in its own pixels. Raises ValueError for another mode."""
        mips, scale = self._read(image)
        size = math.sqrt(image.width * image.height)
        min_face = max(self.min_face_px, self.min_face_share * size) * scale
        boxes = self._propose(mips, min_face)
        boxes = self._filter(mips, boxes)
        found = _plausible(*self._locate(mips, boxes), scale)
        found.sort(key=lambda face: area_xyxy(face.box_xyxy), reverse=True)
        return Detection(tuple(found[: self.max_faces]), max(len(found) - self.max_faces, 0))

    @torch.inference_mode()
    def refine(self, image: Image.Image, faces: Sequence[Face]) -> tuple[Face | None, ...]:
        """For each face its place in this image, looked for around its box, or None where it is not seen.

        Only the last network runs, on one window a face, so that this costs a small part of ``detect``.
        """
        if not faces:
            return ()
        windows = _square(torch.tensor([face.box_xyxy for face in faces], dtype=torch.float32, device=self.device))
        region = _region_around(windows, image.size)
        mips, scale = self._read(image.crop(region))
        corner = torch.tensor(region[:2], device=self.device)
        windows = (windows - corner.repeat(2)) * scale
        scores, shifts, points = self._run_onet(mips, windows)
        boxes = _shift(windows, shifts) + corner.repeat(2) * scale
        points = _place_points(windows, points) + corner * scale
        found = [_plausible(*(part[i : i + 1] for part in (boxes, scores, points)), scale) for i in range(len(faces))]
        return tuple(one[0] if one and one[0].score >= self.keep_threshold else None for one in found)

    def _read(self, image: Image.Image) -> tuple[list[torch.Tensor], float]:
        """The bounded copy and its halvings, each (1, 3, H, W) in [-1, 1], and copy pixels per photo pixel."""
        if image.mode != "RGB":
            raise ValueError(
                f"the image has mode {image.mode!r}; detection takes RGB, so call image.convert('RGB') first"
            )
        scale = min(1.0, math.sqrt(self.max_pixels / (image.width * image.height)))
        if scale < 1:
            size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None]
        mips = [pixels.float().sub_(127.5).mul_(1 / 128)]
        while min(mips[-1].shape[-2:]) >= 2 * PNET_CELL_PX:
            mips.append(F.avg_pool2d(mips[-1], 2))
        return mips, scale

    def _propose(self, mips: list[torch.Tensor], min_face: float) -> torch.Tensor:
        """Square windows (N, 4) of the first network, run over every level of a pyramid."""
        height, width = mips[0].shape[-2:]
        level_scale = PNET_CELL_PX / min_face
        boxes, scores, shifts = [], [], []
        while min(height, width) * level_scale >= PNET_CELL_PX:
            found = self._propose_level(mips, level_scale)
            for all_, new in zip((boxes, scores, shifts), found, strict=True):
                all_.append(new)
            level_scale *= PYRAMID_STEP
        if not boxes:
            return torch.zeros(0, 4, device=self.device)
        boxes, scores, shifts = (torch.cat(parts) for parts in (boxes, scores, shifts))
        keep = nms(boxes, scores, 0.7)[:MAX_PROPOSALS]
        return _square(_shift(boxes[keep], shifts[keep]))

    def _propose_level(self, mips: list[torch.Tensor], level_scale: float) -> tuple[torch.Tensor, ...]:
        height, width = mips[0].shape[-2:]
        size = (math.ceil(height * level_scale), math.ceil(width * level_scale))
        source = mips[min(max(math.floor(-math.log2(level_scale)), 0), len(mips) - 1)]
        level = F.interpolate(source, size=size, mode="bilinear", antialias=True)
        shifts, probabilities = self._pnet(level.contiguous(memory_format=torch.channels_last))
        scores = probabilities[0, 1]
        rows, columns = (scores >= self.thresholds[0]).nonzero(as_tuple=True)
        corner = torch.stack([columns, rows], dim=1) * PNET_STRIDE_PX
        to_photo = torch.tensor([width / size[1], height / size[0]], device=self.device)
        boxes = torch.cat([corner * to_photo, (corner + PNET_CELL_PX) * to_photo], dim=1)
        scores, shifts = scores[rows, columns], shifts[0, :, rows, columns].T
        keep = nms(boxes, scores, 0.5)
        return boxes[keep], scores[keep], shifts[keep]

    def _filter(self, mips: list[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
        """The square windows that the second network lets pass."""
        if not len(boxes):
            return boxes
        shifts, probabilities = self._rnet(_windows(mips, boxes, RNET_PX))
        scores = probabilities[:, 1]
        keep = (scores >= self.thresholds[1]).nonzero()[:, 0]
        keep = keep[nms(boxes[keep], scores[keep], 0.7)]
        return _square(_shift(boxes[keep], shifts[keep]))

    def _locate(self, mips: list[torch.Tensor], boxes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Boxes (N, 4), scores (N,) and landmarks (N, 5, 2) of the third network, in pixels of the copy."""
        if not len(boxes):
            return boxes, boxes.new_zeros(0), boxes.new_zeros(0, 5, 2)
        scores, shifts, _ = self._run_onet(mips, boxes)
        keep = scores >= self.thresholds[2]
        windows, scores = boxes[keep], scores[keep]
        boxes = _shift(windows, shifts[keep])
        keep = _drop_nested(boxes, scores, 0.7)
        return boxes[keep], scores[keep], self._steady(mips, _square(boxes[keep]))

    def _steady(self, mips: list[torch.Tensor], windows: torch.Tensor) -> torch.Tensor:
        """Landmarks (N, 5, 2) averaged over the windows of the found faces and four shifted ones each.

        One look alone moves by a pixel or more when a photo is only compressed again, and the crop moves with it; so do
        looks through the windows that were proposed, of which another one may win.
        """
        if not len(windows):
            return windows.new_zeros(0, 5, 2)
        side = windows[:, 2:3] - windows[:, 0:1]
        shifted = torch.cat([windows + side * windows.new_tensor(shift * 2) for shift in STEADYING_SHIFTS])
        _, _, points = self._run_onet(mips, shifted)
        return _place_points(shifted, points).view(len(STEADYING_SHIFTS), len(windows), 5, 2).mean(0)

    def _run_onet(self, mips: list[torch.Tensor], boxes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shifts, points, probabilities = self._onet(_windows(mips, boxes, ONET_PX))
        return probabilities[:, 1], shifts, points


def _windows(mips: list[torch.Tensor], boxes: torch.Tensor, size: int) -> torch.Tensor:
    """The square windows as (N, 3, size, size), each from the halved copy where it is at most twice that large."""
    side = boxes[:, 2] - boxes[:, 0]
    which = torch.log2((side / size).clamp(min=1)).floor().long().clamp(max=len(mips) - 1)
    out = mips[0].new_empty(len(boxes), 3, size, size).contiguous(memory_format=torch.channels_last)
    for level in which.unique().tolist():
        chosen = which == level
        # Halving drops an odd last row or column, so a halved copy's pixels are exactly twice as large.
        out[chosen] = roi_align(mips[level], [boxes[chosen]], size, 0.5**level, sampling_ratio=2, aligned=True)
    return out


def _region_around(windows: torch.Tensor, image_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of the image, in whole pixels, that holds all windows; at least one pixel."""
    (x0, y0), (x1, y1) = windows[:, :2].amin(dim=0).tolist(), windows[:, 2:].amax(dim=0).tolist()
    width, height = image_wh
    left, top = min(max(math.floor(x0) - 2, 0), width - 1), min(max(math.floor(y0) - 2, 0), height - 1)
    return left, top, max(min(math.ceil(x1) + 2, width), left + 1), max(min(math.ceil(y1) + 2, height), top + 1)


def _square(boxes: torch.Tensor) -> torch.Tensor:
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _shift(boxes: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """The boxes with each corner moved by a fraction of the box's width and height."""
    return boxes + shifts * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _place_points(windows: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Landmarks (N, 5, 2) in pixels from (N, 10): five x, then five y, as fractions of the window."""
    return windows[:, None, :2] + points.view(-1, 2, 5).transpose(1, 2) * (windows[:, 2:] - windows[:, :2])[:, None]


def _drop_nested(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    """Indices of the boxes, best first, that share less than ``threshold`` of the smaller area with a better one."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    iou = box_iou(boxes, boxes)
    overlap = iou * (areas[:, None] + areas) / (1 + iou)
    nested = (overlap > threshold * torch.minimum(areas[:, None], areas)).cpu().numpy()
    keep: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if not nested[i, keep].any():
            keep.append(i)
    return keep


def _plausible(boxes: torch.Tensor, scores: torch.Tensor, points: torch.Tensor, scale: float) -> list[Face]:
    """Faces in photo pixels; boxes that are empty or not finite, or whose landmarks lie far outside, are left out."""
    faces = []
    for box, score, marks in zip((boxes / scale).tolist(), scores.tolist(), (points / scale).tolist(), strict=True):
        width, height = box[2] - box[0], box[3] - box[1]
        finite = all(math.isfinite(v) for v in (score, *box, *(v for mark in marks for v in mark)))
        if not finite or width <= 0 or height <= 0:
            continue
        if all(
            box[0] - width / 4 <= x <= box[2] + width / 4 and box[1] - height / 4 <= y <= box[3] + height / 4
            for x, y in marks
        ):
            faces.append(Face(tuple(box), min(max(score, 0.0), 1.0), tuple((x, y) for x, y in marks)))
    return faces


def _require_settings(
    min_face_px: float, min_face_share: float, thresholds: Sequence[float], max_faces: int, max_pixels: int
) -> None:
    if min_face_px < PNET_CELL_PX:
        raise ValueError(f"min_face_px is {min_face_px}; MTCNN sees faces from {PNET_CELL_PX} pixels on")
    if not 0 <= min_face_share < 1:
        raise ValueError(f"min_face_share is {min_face_share}; it is a share of the photo's size, from 0 to below 1")
    if len(thresholds) != 4 or not all(0 <= value <= 1 for value in thresholds):
        raise ValueError(
            f"thresholds and keep_threshold are {thresholds!r}; give a score in [0, 1] for each of the three networks "
            "and one to keep a face"
        )
    if max_faces < 1 or max_pixels < 1:
        raise ValueError(f"max_faces is {max_faces} and max_pixels {max_pixels}; both must be at least 1")
