"""The Batch tab: many photos or a zip; a sortable table, and CSV, JSON and a zip with the pictures to take away."""

import base64
import io
import json
import zipfile
from collections.abc import Sequence
from html import escape

import gradio as gr
from PIL import Image

from fer_hf.demo.archives import MAX_FILES, count_files, unpack
from fer_hf.demo.calls import files_of
from fer_hf.demo.desk import Desk
from fer_hf.demo.job_calls import job_calls
from fer_hf.demo.jobs import Jobs, Progress
from fer_hf.demo.limits import MEGABYTE
from fer_hf.demo.markup import data_url
from fer_hf.demo.records import to_csv
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.tabs import (
    JOB_STATUS,
    LARGEST_FILE,
    NOTICE,
    PHOTO_FILES,
    drop_zone,
    frame,
    placeholder,
    tab_component,
)
from fer_hf.demo.uploads import Upload
from fer_hf.image_io import ImageError
from fer_hf.rendering import draw_faces, percent

THUMBNAIL_PX = 72
DRAWN_PX = 960


def build_batch_tab(shelf: Shelf, jobs: Jobs) -> gr.HTML:
    """The tab's one component."""

    def prepare(form):
        uploads, desk = files_of(form), shelf.desk(str(form.data.get("model", "")))
        count_files(uploads)
        return lambda progress: show_batch(desk, uploads, progress)

    return tab_component(
        "batch", _page_html(), "fer.jobTab(element, server, { keep: 'batch' })", job_calls(jobs, prepare)
    )


def show_batch(desk: Desk, uploads: Sequence[Upload], progress: Progress) -> dict:
    """Every photo's result: the table as HTML, and JSON, CSV and a zip for download. One bad file costs one row."""
    total = count_files(uploads)
    rows, records, packed = [], [], io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, upload in enumerate(unpack(uploads), 1):
            progress.step(number - 1, total)
            record, picture, thumbnails = _one(desk, upload)
            records.append(record)
            rows.append(_rows(record, thumbnails))
            if picture is not None:
                archive.writestr(f"{number:03d}-{(upload.name.rpartition('.')[0] or upload.name)[:80]}.jpg", picture)
        results = {"results.json": json.dumps(records, indent=2), "results.csv": to_csv(records)}
        for name, text in results.items():
            archive.writestr(name, text, zipfile.ZIP_DEFLATED)
    return {
        "html": _table(rows, records),
        "json": results["results.json"],
        "csv": results["results.csv"],
        "zip": base64.b64encode(packed.getvalue()).decode(),
    }


def batch_records(desk: Desk, uploads: Sequence[Upload]) -> list[dict]:
    """The records alone, for the API."""
    count_files(uploads)
    return [_one(desk, upload, with_pictures=False)[0] for upload in unpack(uploads)]


def _one(desk: Desk, upload: Upload, with_pictures: bool = True) -> tuple[dict, bytes | None, list[str]]:
    """The record of a photo, the photo with its faces drawn as JPEG, and a thumbnail of each face."""
    try:
        found = desk.recognize(upload)
    except ImageError as error:
        return {"file": upload.name, "faces": [], "error": str(error)}, None, []
    record = desk.record_of(upload.name, found)
    if not with_pictures:
        return record, None, []
    drawn = draw_faces(found.photo, found.predictions)
    drawn.thumbnail((DRAWN_PX, DRAWN_PX))
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=85)
    pictures = [one.aligned.crop for one in found.predictions] or [found.photo]
    return record, buffer.getvalue(), [_thumbnail(picture) for picture in pictures]


def _thumbnail(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return data_url(small, "JPEG", quality=80)


def _rows(record: dict, thumbnails: Sequence[str]) -> str:
    name = escape(record["file"])
    if not record["faces"]:
        reason = escape(record.get("error", "no face found"))
        picture = f'<img src="{thumbnails[0]}" alt="">' if thumbnails else ""
        return f'<tr><td>{picture}</td><td>{name}</td><td></td><td colspan="2" class="fer-reason">{reason}</td></tr>'
    return "".join(
        f'<tr><td><img src="{thumbnail}" alt=""></td><td>{name}</td><td>{number}</td>'
        f"<td>{escape(' or '.join(face['between']))}</td>"
        f'<td data-value="{face["score"]:.6f}">{percent(face["score"])}</td></tr>'
        for number, (face, thumbnail) in enumerate(zip(record["faces"], thumbnails, strict=True), 1)
    )


def _table(rows: Sequence[str], records: Sequence[dict]) -> str:
    faces, bad = sum(len(record["faces"]) for record in records), sum("error" in record for record in records)
    summary = (
        f"{len(records)} {'photo' if len(records) == 1 else 'photos'}, {faces} {'face' if faces == 1 else 'faces'}"
    )
    summary += f", {bad} {'file' if bad == 1 else 'files'} could not be read." if bad else "."
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" data-sort="{column}">{title}</button></th>'
        for column, title in enumerate(("File", "Face", "Perceived", "Probability"), 1)
    )
    return (
        f'<p class="fer-summary">{summary}</p><div class="fer-tools"><span class="fer-save"><span>Download</span>'
        '<button type="button" data-take="csv">CSV</button><button type="button" data-take="json">JSON</button>'
        '<button type="button" data-take="zip">Zip with pictures</button></span></div>'
        f'<div class="fer-scroll" tabindex="0" role="region" aria-label="Results"><table class="fer-table"><thead><tr>'
        f'<th scope="col">Picture</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _page_html() -> str:
    hint = (
        f"or drop them here: at most {MAX_FILES} photos and {LARGEST_FILE // MEGABYTE} MB at a time. A file that "
        "cannot be read costs one row of the table, not the rest."
    )
    drop = drop_zone("batch", "Choose photos or a zip", hint, accept=f"{PHOTO_FILES},.zip", many=True)
    text = "The table appears here: a row a face, sortable, to take away as CSV, JSON or a zip with the pictures."
    return frame(NOTICE + drop + JOB_STATUS, placeholder(text), answer_label="Results", max_bytes=LARGEST_FILE)
