"""``training/ensemble.py``: saved models in, one portable folder out, with what any member has seen."""

import json

import pytest
import torch

from fer_hf.hub import load_model, save_portable
from fer_hf.labels import FER7, id2label
from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_resnet_swish import ResNetSwishForImageClassification
from training.ensemble import main
from training.provenance import FILE_NAME, different_pictures, overlap, read_used, seen_by_any

HASHES = [f"{value:016x}" for value in range(1, 61)]


def save_member(folder, seed: int, record: dict, margin: float = 0.2, size: int = 8):
    torch.manual_seed(seed)
    config = ResNetSwishConfig(id2label=id2label(FER7), image_size=size, hidden_sizes=(4,), depths=(1,))
    model = ResNetSwishForImageClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    save_portable(model, FerImageProcessor(size, face_margin=margin), folder)
    (folder / FILE_NAME).write_text(json.dumps(record))
    return str(folder)


def record(hashes: list[str], every: int) -> dict:
    chosen = [h for h in hashes if int(h, 16) % every == 0]
    return {
        "labels": "fer2013",
        "n": len(hashes),
        "sha256": f"s{every}",
        "sample": {"every": every, "pixel_sha256": chosen},
    }


class Split:
    """What ``overlap`` reads of a split."""

    def __init__(self, hashes):
        self.pixel_sha256 = tuple(h.ljust(64, "0") for h in hashes)

    def sha256(self):
        return "other"


def test_members_become_one_folder_that_knows_what_any_of_them_has_seen(tmp_path, capsys):
    first, second, selection = record(HASHES[:30], 2), record(HASHES[30:], 3), record(HASHES[:6], 1)
    paths = [
        save_member(tmp_path / "a", 1, {"train": first, "selection": selection}),
        save_member(tmp_path / "b", 2, {"train": second, "selection": selection}),
    ]
    main([*paths, "--output", str(tmp_path / "both"), "--weights", "1", "3"])
    assert "an ensemble of 2 models is in" in capsys.readouterr().out
    both, members = load_model(tmp_path / "both"), [load_model(path) for path in paths]
    pixel_values = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        expected = sum(w * m.model(pixel_values).logits.softmax(1) for w, m in zip((0.25, 0.75), members, strict=True))
        torch.testing.assert_close(both.model(pixel_values).logits.softmax(1), expected, atol=1e-5, rtol=1e-4)
    assert both.processor.size_px == 8
    used = read_used(tmp_path / "both")
    assert used["selection"] == selection
    assert used["train"]["sample"] == {"every": 6, "pixel_sha256": [h for h in HASHES if int(h, 16) % 6 == 0]}
    assert (used["train"]["labels"], used["train"]["n"]) == ("fer2013", 60)
    assert overlap(used["train"], Split(HASHES)) == 1.0
    assert overlap(used["train"], Split([f"{value:016x}" for value in range(600, 660)])) == 0.0


def test_a_member_is_not_written_over(tmp_path):
    paths = [save_member(tmp_path / name, number, {}) for number, name in enumerate("ab")]
    with pytest.raises(ValueError, match="exists already; choose another path"):
        main([*paths, "--output", paths[1]])
    assert load_model(paths[1]).model.config.model_type == "fer_resnet_swish"


def test_records_of_the_same_pictures_are_one_whatever_their_labels():
    one = record(HASHES, 1) | {"pixel_sha256": "p"}
    other = one | {"labels": "ferplus-soft", "sha256": "other"}
    joined = seen_by_any([{"train": one}, {"train": other}, {"train": one}], "train")
    assert (joined["n"], joined["sha256"], "labels" in joined) == (60, None, False)
    assert different_pictures(joined) is None
    more = seen_by_any([{"train": joined}, {"train": record(HASHES[:30], 1) | {"pixel_sha256": "q"}}], "train")
    assert (more["n"], different_pictures(more)) == (90, 60)


def test_what_a_member_on_the_hub_has_seen_is_known_too(hub, tmp_path):
    from huggingface_hub import HfApi

    here = save_member(tmp_path / "here", 1, {"train": record(HASHES[:30], 1)})
    there = save_member(tmp_path / "there", 2, {"train": record(HASHES[30:], 1)})
    HfApi().create_repo("user/there")
    HfApi().upload_folder(repo_id="user/there", folder_path=there)
    main([here, "user/there@main", "--output", str(tmp_path / "both")])
    used = read_used(tmp_path / "both")
    assert overlap(used["train"], Split(HASHES)) == 1.0


def test_members_that_frame_faces_differently_are_refused_and_nothing_is_written(tmp_path):
    paths = [save_member(tmp_path / "a", 1, {}), save_member(tmp_path / "b", 2, {}, margin=0.4)]
    with pytest.raises(ValueError, match="must frame faces alike"):
        main([*paths, "--output", str(tmp_path / "both")])
    assert not (tmp_path / "both").exists()
