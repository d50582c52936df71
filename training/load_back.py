"""Does a model on the Hub answer as its folder here does? ``python training/load_back.py FOLDER REPO_ID REVISION``.

Both are loaded as a stranger loads them, with the Auto classes and the code beside the weights: fer_hf cannot be
imported in this process. ``push_to_hub.py`` runs it with an empty cache. Prints one JSON object.
"""

import json
import sys

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification


def answers(name: str, revision: str | None = None) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Class names, pixel values and logits (2, K) of a model for two seeded pictures."""
    options = {"trust_remote_code": True} | ({"revision": revision} if revision else {})
    model = AutoModelForImageClassification.from_pretrained(name, use_safetensors=True, **options).eval()
    processor = AutoImageProcessor.from_pretrained(name, **options)
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 256, (90, 70, 3), dtype=np.uint8)) for _ in range(2)]
    pixel_values = processor(pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values=pixel_values.to(model.dtype)).logits
    return [model.config.id2label[index] for index in range(len(model.config.id2label))], pixel_values, logits


def main() -> None:
    folder, repo_id, revision = sys.argv[1:]
    # The code beside the weights may not lean on an installed fer_hf: importing it fails here.
    sys.modules["fer_hf"] = None
    torch.set_num_threads(1)
    here, there = answers(folder), answers(repo_id, revision)
    found = {
        "classes": here[0] == there[0],
        "pixel_values": torch.equal(here[1], there[1]),
        "logits": torch.equal(here[2], there[2]),
        "finite": bool(there[2].isfinite().all()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
