"""Results as plain data: one JSON object a photo, one CSV row a face."""

import csv
import io
from collections.abc import Iterable

from fer_hf.demo.wording import name_classes, warn_about_face
from fer_hf.faces import Prediction
from fer_hf.recognition import Recognition


def face_record(prediction: Prediction) -> dict:
    """One face: label, every score, the box in photo pixels, what the label is between, warnings."""
    record = {
        "label": prediction.label,
        "score": round(prediction.score, 6),
        "scores": {name: round(score, 6) for name, score in prediction.scores.items()},
        "between": name_classes(prediction.scores, prediction.answer_threshold),
    }
    if prediction.face is not None:
        corners = (round(value, 2) for value in prediction.face.box_xyxy)
        record["box"] = dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
        record["detection_score"] = round(prediction.face.score, 6)
        record["warnings"] = warn_about_face(prediction.face, prediction.aligned)
    return record


def photo_record(name: str, found: Recognition, model_name: str) -> dict:
    """One photo with its faces, largest first."""
    return {
        "file": name,
        "width": found.photo.width,
        "height": found.photo.height,
        "model": model_name,
        "faces": [face_record(prediction) for prediction in found.predictions],
        "faces_skipped": found.skipped,
        "notes": list(found.notes),
    }


def to_csv(records: Iterable[dict]) -> str:
    """One row a face, with a column a class; a photo without a face, or with an error, has one row without scores.

    File names, and class names of models from the Hub, are defused: they come from strangers.
    """
    records = list(records)
    classes = list(dict.fromkeys(name for one in records for face in one.get("faces", ()) for name in face["scores"]))
    named = {name: defuse(name) for name in classes}
    columns = ["file", "face", "label", "score", "xmin", "ymin", "xmax", "ymax", "detection_score"]
    columns += [*named.values(), "error"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for one in records:
        name = defuse(one["file"])
        if not one.get("faces"):
            writer.writerow({"file": name, "error": one.get("error", "no face found")})
        for number, face in enumerate(one.get("faces", ()), 1):
            row = {"file": name, "face": number, "label": defuse(face["label"]), "score": face["score"]}
            scores = {named[name]: score for name, score in face["scores"].items()}
            writer.writerow(
                {**row, **face.get("box", {}), "detection_score": face.get("detection_score", ""), **scores}
            )
    return out.getvalue()


def defuse(cell: str) -> str:
    """A cell with an apostrophe in front where a spreadsheet would run it as a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
