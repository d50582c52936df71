"""The perceived expression of a face crop without torch: ``python examples/onnx_photo.py model.onnx face.jpg``."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
mode = "L" if facts["num_channels"] == 1 else "RGB"
crop = Image.open(sys.argv[2]).convert("RGB").convert(mode).resize((facts["size"],) * 2, Image.Resampling.BILINEAR)
pixels = np.asarray(crop).reshape(facts["size"], facts["size"], -1).transpose(2, 0, 1)[None]
logits = session.run(["logits"], {"pixels": pixels})[0][0]
scores = np.exp(logits - logits.max())
for label, score in sorted(zip(facts["labels"], scores / scores.sum(), strict=True), key=lambda pair: -pair[1]):
    print(f"{label}: {score:.4f}")
