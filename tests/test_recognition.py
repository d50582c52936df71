"""Photos to expressions: every face keeps its photo, every option does what it says, every model type is taken."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fer_hf import pipeline, recognition
from fer_hf.classifier import TorchClassifier, crop_size_px, fold_norms, shared_copy
from fer_hf.detection import Detection
from fer_hf.faces import Face
from fer_hf.hub import ModelError, load_model
from fer_hf.image_io import ImageError
from fer_hf.labels import FER7, id2label
from fer_hf.recognition import GRAD_CAM, MAX_CROPS_AT_ONCE, ExpressionRecognizer

LANDMARKS = ((38.0, 46.0), (62.0, 45.0), (50.0, 60.0), (40.0, 74.0), (61.0, 73.0))


class FakeDetector:
    """Finds as many faces as the photo is wide in hundreds of pixels, unless its first pixel is black."""

    def detect(self, image: Image.Image) -> Detection:
        if image.getpixel((0, 0)) == (0, 0, 0):
            return Detection(())
        faces = [
            Face(
                (100.0 * i + 20, 20.0, 100.0 * i + 80.4, 95.0),
                0.9,
                tuple((x + 100 * i, y) for x, y in LANDMARKS),
            )
            for i in range(image.width // 100)
        ]
        return Detection(tuple(faces[:3]), max(len(faces) - 3, 0))


def picture(width: int, seed: int, *, face: bool = True) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(1, 256, (100, width, 3), dtype=np.uint8)
    pixels[0, 0] = 255 if face else 0
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def model_path(tiny_model_path, tmp_path_factory):
    """The tiny model with answers that differ from picture to picture, and norms that do something."""
    loaded = load_model(tiny_model_path)
    torch.manual_seed(0)
    with torch.no_grad():
        for module in loaded.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
        loaded.model.classifier.weight.normal_(std=20)
    path = tmp_path_factory.mktemp("lively")
    loaded.model.save_pretrained(path)
    loaded.processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def fer(model_path):
    return pipeline("facial-expression-recognition", model=model_path, detector=FakeDetector(), device="cpu")


@pytest.fixture(scope="module")
def recognizer(fer) -> ExpressionRecognizer:
    return fer.recognizer


PHOTOS = [picture(200, 1), picture(150, 2, face=False), picture(100, 3)]


def near(found: list, expected: list) -> None:
    """The same faces at the same places, with probabilities equal to rounding."""
    assert [[row["box"] for row in photo] for photo in found] == [[row["box"] for row in photo] for photo in expected]
    for photo, wanted in zip(found, expected, strict=True):
        for row, want in zip(photo, wanted, strict=True):
            assert row["scores"] == pytest.approx(want["scores"], abs=1e-6)


def test_one_photo_gives_the_promised_record(fer):
    rows = fer(PHOTOS[0])
    assert [list(row) for row in rows] == [["label", "score", "scores", "box", "detection_score"]] * 2
    assert rows[1]["box"] == {"xmin": 120, "ymin": 20, "xmax": 180, "ymax": 95}
    assert all(isinstance(value, int) for value in rows[1]["box"].values())
    assert rows[1]["detection_score"] == 0.9
    assert list(rows[1]["scores"]) == list(FER7)
    assert sum(rows[1]["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert rows[1]["score"] == rows[1]["scores"][rows[1]["label"]] == max(rows[1]["scores"].values())
    assert rows[0]["scores"] != rows[1]["scores"]
    assert fer(PHOTOS[1]) == []


@pytest.mark.parametrize("batch_size", [1, 4])
def test_photos_without_a_face_keep_their_place(fer, batch_size):
    singly = [fer(photo) for photo in PHOTOS]
    assert [len(rows) for rows in singly] == [2, 0, 1]
    near(fer(PHOTOS, batch_size=batch_size), singly)
    near(fer(tuple(PHOTOS), batch_size=batch_size), singly)
    near(list(fer((photo for photo in PHOTOS), batch_size=batch_size)), singly)
    near(list(fer(iter(PHOTOS), batch_size=batch_size)), singly)
    assert fer([], batch_size=batch_size) == []


@pytest.mark.parametrize("batch_size", [1, 4])
def test_dataset_columns_and_key_datasets(fer, batch_size):
    import datasets
    from transformers.pipelines.pt_utils import KeyDataset

    singly = [fer(photo) for photo in PHOTOS]
    data = datasets.Dataset.from_dict({"image": PHOTOS}, features=datasets.Features(image=datasets.Image()))
    near(fer(data["image"], batch_size=batch_size), singly)
    near(list(fer(KeyDataset(data, "image"), batch_size=batch_size)), singly)
    undecoded = data.cast_column("image", datasets.Image(decode=False))
    near(fer(undecoded["image"], batch_size=batch_size), singly)


def test_all_faces_of_a_batch_go_through_the_network_together(fer, monkeypatch):
    sizes = []
    classifier, run = fer.recognizer.classifier, fer.recognizer.classifier.probabilities
    monkeypatch.setattr(classifier, "probabilities", lambda crops: sizes.append(len(crops)) or run(crops))
    fer(PHOTOS, batch_size=3)
    assert sizes == [3]
    fer(PHOTOS, batch_size=2)
    assert sizes == [3, 2, 1]
    fer([PHOTOS[1]])
    assert sizes == [3, 2, 1]
    fer.recognizer.classify([PHOTOS[0].crop((0, 0, 48, 48))] * (MAX_CROPS_AT_ONCE + 1))
    assert sizes[3:] == [MAX_CROPS_AT_ONCE, 1]


def test_a_generator_is_read_batch_by_batch(fer):
    read = []

    def photos():
        for index, photo in enumerate(PHOTOS * 2):
            read.append(index)
            yield photo

    results = fer(photos(), batch_size=2)
    assert read in ([], [0])  # transformers peeks at the first
    next(results)
    assert read == [0, 1]


def test_workers_answer_each_photo_of_a_generator_once(fer):
    expected = [fer(photo) for photo in PHOTOS]
    near(list(fer((photo for photo in PHOTOS), batch_size=1, num_workers=2)), expected)


def test_everything_that_image_io_reads_is_taken(fer, tmp_path):
    photo = PHOTOS[0]
    photo.save(tmp_path / "photo.png")
    content = (tmp_path / "photo.png").read_bytes()
    expected = [fer(photo)]
    sources = [tmp_path / "photo.png", str(tmp_path / "photo.png"), content, np.asarray(photo)]
    for source in [*sources, io.BytesIO(content)]:
        near([fer(source)], expected)
    near(fer(sources), expected * len(sources))
    (tmp_path / "bad.png").write_bytes(content[:100])
    with pytest.raises(ImageError):
        fer([photo, tmp_path / "bad.png"])


def test_tta_is_the_mean_of_view_and_mirror_image(recognizer):
    crops = [recognizer.take_as_crop(picture(100, seed)).crop for seed in (5, 6)]
    mirrored = [crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for crop in crops]
    single, mirror = recognizer.classify(crops), recognizer.classify(mirrored)
    assert np.abs(single - mirror).max() > 1e-3
    np.testing.assert_allclose(recognizer.classify(crops, tta=True), (single + mirror) / 2, atol=1e-6)
    assert recognizer.classify([]).shape == (0, 7)


def test_options_of_the_pipeline(fer, model_path):
    (plain,) = fer(PHOTOS[2])
    (best,) = fer(PHOTOS[2], top_k=2)
    assert list(best["scores"].values()) == sorted(plain["scores"].values(), reverse=True)[:2]
    (mirrored,) = fer(PHOTOS[2], tta=True)
    assert mirrored["scores"] != plain["scores"]
    always = pipeline(model=model_path, detector=FakeDetector(), device="cpu", tta=True, top_k=1, batch_size=2)
    ((kept,),) = always([PHOTOS[2]])
    assert kept["scores"] == pytest.approx({mirrored["label"]: mirrored["score"]}, abs=1e-6)
    assert always(PHOTOS[2], top_k=None)[0]["scores"] == pytest.approx(mirrored["scores"], abs=1e-6)
    with pytest.raises(ValueError, match="'detect', 'crop'"):
        fer(PHOTOS[2], faces="find")
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        fer(PHOTOS[2], top_k=0)
    with pytest.raises(TypeError, match="top"):
        fer(PHOTOS[2], top=3)


def test_crops_are_classified_as_the_processor_prepares_them(fer, model_path):
    loaded = load_model(model_path)
    pixel_values = loaded.processor(images=[PHOTOS[2]], return_tensors="pt")["pixel_values"]
    expected = loaded.model(pixel_values).logits.softmax(1)[0].tolist()
    (row,) = fer(PHOTOS[2], faces="crop")
    assert row["box"] is None
    assert row["detection_score"] is None
    assert list(row["scores"].values()) == pytest.approx(expected, abs=2e-3)  # grey before or after shrinking
    small = PHOTOS[2].resize((48, 48))
    pixel_values = loaded.processor(images=[small], return_tensors="pt")["pixel_values"]
    expected = loaded.model(pixel_values).logits.softmax(1)[0].tolist()
    assert list(fer(small, faces="crop")[0]["scores"].values()) == pytest.approx(expected, abs=1e-6)


def test_attention_comes_in_crop_space_with_its_affine(fer, recognizer):
    (row,) = fer(PHOTOS[2], attention=True)
    assert {name: values.shape for name, values in row["attention"].items()} == {
        "grad_cam": (48, 48),
        "stage1.block1.se": (8,),
        "stage2.block1.se": (16,),
    }
    face = recognizer.find_faces(PHOTOS[2]).faces[0]
    aligned = recognizer.align(PHOTOS[2], face)
    np.testing.assert_array_equal(row["photo_to_crop"], aligned.photo_to_crop)
    left_eye = row["photo_to_crop"] @ (*face.landmarks[0], 1)
    assert left_eye / 48 == pytest.approx((0.3, 0.4), abs=0.1)
    assert recognizer.attention_names == tuple(row["attention"])
    maps = recognizer.attend([aligned.crop] * 2, target=[3, 4])
    assert np.abs(maps[0]["grad_cam"] - maps[1]["grad_cam"]).max() > 0.1
    by_name = recognizer.attend([aligned.crop], target="happy")
    np.testing.assert_allclose(by_name[0]["grad_cam"], maps[0]["grad_cam"], atol=1e-4)
    with pytest.raises(ValueError, match="no class 'joy'; it has angry"):
        recognizer.attend([aligned.crop], target="joy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recognition, "MAX_CROPS_AT_ONCE", 1)
        parts = recognizer.attend([aligned.crop] * 2, target=np.array([3, 4]))
    for one, other in zip(parts, maps, strict=True):
        np.testing.assert_allclose(one[GRAD_CAM], other[GRAD_CAM], atol=1e-4)
    assert recognizer.attend([]) == []


def test_recognize_says_how_many_faces_were_left_out(recognizer):
    result = recognizer.recognize(picture(500, 7))
    assert len(result.predictions) == 3
    assert result.skipped == 2
    assert result.notes == ("2 smaller faces were left out; 3 are the most that are looked at.",)
    assert result.photo.size == (500, 100)
    assert result.predictions[0].face.box_xyxy == (20.0, 20.0, 80.4, 95.0)
    assert result.predictions[0].attention is None


def test_folded_network_computes_the_same(model_path):
    model = load_model(model_path).model
    pixel_values = torch.randn(4, 1, 48, 48)
    folded = fold_norms(shared_copy(model))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()) == 6
    with torch.inference_mode():
        expected, found = model(pixel_values).raw_logits, folded(pixel_values).raw_logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert expected.std(0).min() > 0.01


def test_dense_layers_fold_too():
    head = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.SiLU())
    head[2].running_mean.fill_(0.3)
    x = torch.randn(5, 4)
    expected = head.eval()(x)
    folded = fold_norms(shared_copy_of(head))
    assert [type(module).__name__ for module in folded] == ["Dropout", "Linear", "Identity", "SiLU"]
    torch.testing.assert_close(folded(x), expected, atol=1e-6, rtol=1e-5)


def shared_copy_of(module: torch.nn.Module) -> torch.nn.Module:
    module.config = None
    return shared_copy(module)


@pytest.fixture(scope="module")
def vit_path(tmp_path_factory):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        id2label=id2label(("happy", "sad", "angry")),
        label2id={"happy": 0, "sad": 1, "angry": 2},
    )
    path = tmp_path_factory.mktemp("vit")
    ViTForImageClassification(config).save_pretrained(path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def test_a_stock_model_works_with_its_own_processor_and_a_square_box(vit_path):
    fer = pipeline("facial-expression-recognition", model=str(vit_path), detector=FakeDetector(), device="cpu")
    (row,) = fer(PHOTOS[2])
    assert list(row["scores"]) == ["happy", "sad", "angry"]
    (aligned,) = [fer.recognizer.align(PHOTOS[2], face) for face in fer.recognizer.find_faces(PHOTOS[2]).faces]
    assert aligned.crop.size == (32, 32)
    side = 75 * 1.2  # the box is 60.4 by 75, with a margin of 20 per cent
    np.testing.assert_allclose(
        aligned.photo_to_crop, [[32 / side, 0, 16 - 32 / side * 50.2], [0, 32 / side, 16 - 32 / side * 57.5]]
    )
    with torch.inference_mode():
        inputs = fer.image_processor(images=[aligned.crop], return_tensors="pt")
        expected = fer.model(**inputs).logits.softmax(1)[0].tolist()
    assert list(row["scores"].values()) == pytest.approx(expected, abs=1e-6)
    assert fer.recognizer.attention_names == ()
    with pytest.raises(ValueError, match="no layer for Grad-CAM"):
        fer(PHOTOS[2], attention=True)


def test_the_task_is_registered_with_transformers(model_path):
    import transformers

    loaded = load_model(model_path)
    fer = transformers.pipeline(
        "facial-expression-recognition",
        model=loaded.model,
        image_processor=loaded.processor,
        detector=FakeDetector(),
        device="cpu",
    )
    assert len(fer(PHOTOS[0])) == 2
    by_path = transformers.pipeline(
        "facial-expression-recognition", model=str(model_path), detector=FakeDetector(), device="cpu"
    )
    near([by_path(PHOTOS[0])], [fer(PHOTOS[0])])
    with pytest.raises(ValueError, match="pass image_processor="):
        pipeline(model=loaded.model)


def test_dtype_and_device_are_kept(model_path):
    fer = pipeline(model=model_path, dtype=torch.bfloat16, device="cpu", detector=FakeDetector())
    assert fer.model.dtype == torch.bfloat16
    assert fer.recognizer.classifier.network.dtype == torch.bfloat16
    exact = pipeline(model=model_path, device="cpu", detector=FakeDetector())
    assert exact.model.dtype == torch.float32
    assert fer(PHOTOS[2])[0]["scores"] == pytest.approx(exact(PHOTOS[2])[0]["scores"], abs=0.02)


def test_other_tasks_go_to_transformers(vit_path):
    assert type(pipeline("image-classification", model=str(vit_path))).__name__ == "ImageClassificationPipeline"


def test_fer_model_names_the_recognizers_model(model_path, monkeypatch):
    monkeypatch.setenv("FER_MODEL", str(model_path))
    assert ExpressionRecognizer.from_pretrained(detector=FakeDetector()).labels == FER7
    monkeypatch.setenv("FER_MODEL", str(model_path / "elsewhere"))
    with pytest.raises(ModelError, match="there is no such folder"):
        ExpressionRecognizer.from_pretrained()


@pytest.mark.parametrize(
    ("settings", "size_px"),
    [
        ({"size": 48}, 48),
        ({"size": {"height": 64, "width": 64}}, 64),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}, 224),
        ({"size": {"shortest_edge": 256}, "do_center_crop": False, "crop_size": {"height": 224, "width": 224}}, 256),
        ({}, 224),
    ],
)
def test_crop_size_follows_the_processor(settings, size_px):
    assert crop_size_px(type("Processor", (), settings)()) == size_px


def test_labels_follow_their_numbers_not_their_order(model_path):
    loaded = load_model(model_path)
    loaded.model.config.id2label = dict(reversed(loaded.model.config.id2label.items()))
    assert TorchClassifier(loaded.model, loaded.processor).labels == FER7


def test_maps_lie_where_strided_convolutions_put_their_cells(astronaut):
    """A map of 12 cells is laid on the pixels that its cells are centred on, not stretched over the crop."""
    import torch

    from fer_hf.labels import FER7, id2label
    from fer_hf.map_geometry import CellGrid
    from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
    from fer_hf.models.image_processing_fer import FerImageProcessor
    from fer_hf.models.modeling_resnet_swish import ResNetSwishForImageClassification

    torch.manual_seed(0)
    config = ResNetSwishConfig(id2label=id2label(FER7), hidden_sizes=(4, 8), depths=(1, 1), stem_stride=2)
    recognizer = ExpressionRecognizer.from_model(
        ResNetSwishForImageClassification(config).eval(), FerImageProcessor(size=48)
    )
    # Cells of a stride of 4 sit on pixels 0, 4, 8, …: stretching would centre the first between pixels 1 and 2.
    assert recognizer._grid_of("grad_cam", 12) == CellGrid(0.0, 4.0)
    (maps,) = recognizer.attend([astronaut.crop((177, 59, 273, 155)).resize((48, 48))])
    assert maps["grad_cam"].shape == (48, 48)
