"""``training/soup.py``: the mean of weights of one network, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fer_hf.hub import load_model
from tests.test_ensemble_command import save_member
from training.provenance import read_used
from training.soup import main

TRAIN = {"n": 3, "sha256": "s", "pixel_sha256": "p", "sample": {"every": 1, "pixel_sha256": ["01", "02", "03"]}}


def change(folder: str, **values) -> None:
    file = Path(folder) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_mean_of_weights_and_statistics_by_the_shares_that_were_asked_for(tmp_path):
    used = ({"train": TRAIN, "temperature": {"n": 5}}, {"train": TRAIN, "selection": {"n": 4}})
    paths = [save_member(tmp_path / name, seed, one) for seed, (name, one) in enumerate(zip("ab", used, strict=True))]
    change(paths[0], temperature=1.5, conformal_threshold=0.2, conformal_coverage=0.9)
    (tmp_path / "a" / "recipe.yaml").write_text("name: first\n")
    main([*paths, "--weights", "1", "3", "--output", str(tmp_path / "mean")])
    a, b, mean = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b", "mean"))
    assert mean.keys() == a.keys()
    assert any("running_var" in name for name in mean)
    for name in mean:
        if mean[name].is_floating_point():
            expected = (a[name].double() + 3 * b[name].double()) / 4
            torch.testing.assert_close(mean[name].double(), expected, atol=1e-3, rtol=1e-3)
    config = load_model(tmp_path / "mean").model.config
    assert (config.temperature, config.conformal_threshold) == (1.0, None)
    assert read_used(tmp_path / "mean") == {"train": TRAIN, "selection": {"n": 4}}
    assert (tmp_path / "mean" / "recipe.yaml").read_text() == "name: first\n"
    soup = json.loads((tmp_path / "mean" / "soup.json").read_text())["averaged"]
    assert [(one["model"], one["weight"]) for one in soup] == [("a", 0.25), ("b", 0.75)]
    assert len({one["weights_sha256"] for one in soup}) == 2


def test_without_shares_each_counts_as_much(tmp_path):
    paths = [save_member(tmp_path / name, seed, {}) for seed, name in enumerate("abc")]
    main([*paths, "--output", str(tmp_path / "mean")])
    weights = [load_file(tmp_path / name / "model.safetensors")["classifier.weight"].double() for name in "abc"]
    mean = load_file(tmp_path / "mean" / "model.safetensors")["classifier.weight"].double()
    torch.testing.assert_close(mean, sum(weights) / 3, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["A"], "a mean is of two or more models; 1 was given"),
        (["A", "B", "--weights", "1"], r"weights must be 2 numbers from 0, not all 0; \[1.0\] was given"),
        (["A", "B", "--weights", "1", "-1"], "weights must be 2 numbers from 0"),
        (["A", "B", "--weights", "0", "0"], "weights must be 2 numbers from 0"),
        (["A", "B", "--weights", "1", "nan"], "weights must be 2 numbers from 0"),
        (["A", "LARGE"], "do not take the same pictures; their image processors differ in size"),
        (["A", "OTHER"], "only weights of the same network have a mean; the configs differ in stem_stride"),
    ],
)
def test_what_has_no_mean_is_refused(arguments, sentence, tmp_path):
    places = {name: tmp_path / name.lower() for name in ("A", "B", "LARGE", "OTHER")}
    for name, place in places.items():
        save_member(place, 1, {}, size=16 if name == "LARGE" else 8)
    change(str(places["OTHER"]), stem_stride=2)
    given = [str(places.get(argument, argument)) for argument in arguments]
    with pytest.raises(ValueError, match=sentence):
        main([*given, "--output", str(tmp_path / "mean")])
    assert not (tmp_path / "mean").exists()


def test_a_model_is_not_written_over(tmp_path):
    paths = [save_member(tmp_path / name, seed, {}) for seed, name in enumerate("ab")]
    with pytest.raises(ValueError, match="exists already; choose another path"):
        main([*paths, "--output", paths[1]])
