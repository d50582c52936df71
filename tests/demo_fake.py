"""A recognizer that finds faces by the photo's width and scores them by its colour: fast, and different per photo."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fer_hf.demo.desk import Desk
from fer_hf.demo.shelf import Shelf
from fer_hf.detection import Detection
from fer_hf.faces import AlignedFace, Face, Prediction, align_face
from fer_hf.hub import ModelError
from fer_hf.image_io import read_image
from fer_hf.labels import FER7
from fer_hf.recognition import Recognition

FACES_BY_WIDTH = {100: 0, 15: 0, 640: 2, 1290: 29, 1000: 100}
CROP_PX = 48


class FakeRecognizer:
    """Stands in for ExpressionRecognizer; photos of other widths than ``FACES_BY_WIDTH`` names have one face."""

    labels = FER7
    attention_names = ("grad_cam", "stage1.block1.se", "stage2.block1.cbam.spatial")
    answer_threshold = answer_coverage = None

    def __init__(self, mirrored: bool = False) -> None:
        self.mirrored, self.delay_s = mirrored, 0.0
        self.attended: list[str | None] = []

    @property
    def detector(self) -> "FakeRecognizer":
        return self

    def detect(self, image: Image.Image) -> Detection:
        faces = make_faces(image.size)
        return Detection(tuple(faces), 7 if len(faces) == 100 else 0)

    find_faces = detect

    def refine(self, image: Image.Image, faces: Sequence[Face]) -> tuple[Face | None, ...]:
        return tuple(faces)

    def recognize(self, source: bytes | Image.Image) -> Recognition:
        photo = read_image(source)
        detection = self.find_faces(photo.image)
        faces = detection.faces
        aligned = [align_face(photo.image, face, template=None, size_px=CROP_PX) for face in faces]
        scores = self.classify([one.crop for one in aligned])
        predictions = tuple(
            Prediction(dict(zip(FER7, row.tolist(), strict=True)), face, one, answer_threshold=self.answer_threshold)
            for row, face, one in zip(scores, faces, aligned, strict=True)
        )
        return Recognition(photo.image, predictions, detection.skipped, photo.notes)

    def classify(self, crops: list[Image.Image], tta: bool = False) -> np.ndarray:
        """(N, 7) probabilities: the mean colour of a crop decides, so that no two test photos share an answer."""
        time.sleep(self.delay_s)
        means = np.array([np.asarray(crop).reshape(-1, 3).mean(axis=0) for crop in crops]).reshape(-1, 3)
        means = means[:, ::-1] if self.mirrored else means
        logits = np.concatenate([means / 40, means[:, ::-1] / 60, means[:, :1] * 0], axis=1)
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exp / exp.sum(axis=1, keepdims=True)

    def attend(self, crops: list[Image.Image], target: str | None = None) -> list[dict[str, np.ndarray]]:
        self.attended.append(target)
        ramp = np.linspace(0, 1, 36).reshape(6, 6)
        if target is not None and FER7.index(target) % 2:
            ramp = ramp[::-1]
        gates = np.linspace(0, 1, 16)
        return [dict(zip(self.attention_names, (ramp, gates, ramp.T), strict=True)) for _ in crops]

    def align(self, image: Image.Image, face: Face) -> AlignedFace:
        return align_face(image, face, template=None, size_px=CROP_PX)


def make_faces(photo_wh: tuple[int, int]) -> list[Face]:
    """Faces on a grid, as many as the photo's width asks for."""
    count = FACES_BY_WIDTH.get(photo_wh[0], 1)
    columns = max(int(np.ceil(np.sqrt(count * photo_wh[0] / photo_wh[1]))), 1)
    cell_w, cell_h = photo_wh[0] / columns, photo_wh[1] / max(int(np.ceil(count / columns)), 1)
    side = 0.6 * min(cell_w, cell_h)
    return [face_at(((i % columns) + 0.5) * cell_w, ((i // columns) + 0.5) * cell_h, side) for i in range(count)]


def face_at(x: float, y: float, side: float) -> Face:
    """A frontal face of that side around a point."""
    marks = ((-0.2, -0.1), (0.2, -0.1), (0.0, 0.1), (-0.15, 0.25), (0.15, 0.25))
    half = side / 2
    return Face((x - half, y - half, x + half, y + half), 0.98, tuple((x + a * side, y + b * side) for a, b in marks))


def fake_shelf(recognizer: FakeRecognizer | None = None) -> Shelf:
    """A shelf of two fake models, of which the second sees the colours the other way round."""
    first = Desk(recognizer or FakeRecognizer(), "fake-one")

    def load(name: str) -> Desk:
        if name.startswith("missing/"):
            raise ModelError(name, "the Hub has no such model")
        return Desk(FakeRecognizer(mirrored=True), name)

    return Shelf(first, {name: Path(name) for name in ("fake-one", "fake-two")}, load)
