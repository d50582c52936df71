"""The Video tab: a clip with its faces drawn in, a timeline of each, and every number as CSV or JSON."""

import base64
import csv
import io
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import gradio as gr
from PIL import Image

from fer_hf.demo.calls import first_file
from fer_hf.demo.desk import Desk
from fer_hf.demo.job_calls import job_calls
from fer_hf.demo.jobs import Jobs, Progress
from fer_hf.demo.limits import MEGABYTE, UNSWEPT
from fer_hf.demo.records import defuse
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.tabs import JOB_STATUS, NOTICE, drop_zone, frame, placeholder, tab_component
from fer_hf.demo.uploads import Upload
from fer_hf.faces import Prediction, area_xyxy
from fer_hf.rendering import draw_faces
from fer_hf.tracking import FaceTracker, Track
from fer_hf.video import CODECS, DEFAULT_LIMITS, VideoFrame, VideoReader, rewrite_video

FRAMES_PER_S = 12.0
SIDE_PX = 960
MAX_FACES = 8
"""Faces of a frame that are looked at, largest first."""
SHOWN_TRACKS = 8
NAMED_FROM = 0.1
"""Classes that never reach this probability are drawn but not named in a timeline's legend."""
SHORTEST_S = 0.5
"""Tracks shorter than this are in the CSV but get no timeline."""
# Okabe and Ito's colours, told apart without colour vision; the Webcam tab's script has the same.
COLOURS = ("#d55e00", "#8a6d00", "#9b59b6", "#009e73", "#0072b2", "#e69f00", "#64748b", "#cc79a7")


def build_video_tab(shelf: Shelf, jobs: Jobs) -> gr.HTML:
    """The tab's one component."""

    def prepare(form):
        upload, desk = first_file(form), shelf.desk(str(form.data.get("model", "")))
        return lambda progress: show_clip(desk, upload, progress)

    return tab_component(
        "video", _page_html(), "fer.jobTab(element, server, { keep: 'video' })", job_calls(jobs, prepare)
    )


@dataclass
class Watcher:
    """Follows and classifies the faces of a clip frame by frame, and remembers what was perceived when."""

    desk: Desk
    rows: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tracker = FaceTracker(self.desk.recognizer.detector, history_s=0)

    def draw(self, frame: VideoFrame) -> Image.Image:
        """The frame with its faces drawn in; a row for each face is kept."""
        recognizer = self.desk.recognizer
        seen = self.tracker.update(frame.image, frame.t_s)
        largest = sorted(seen, key=lambda track: area_xyxy(track.face.box_xyxy), reverse=True)[:MAX_FACES]
        aligned = [recognizer.align(frame.image, track.face) for track in largest]
        scores = self.desk.score([one.crop for one in aligned])
        predictions = []
        for track, crop, row in zip(largest, aligned, scores, strict=True):
            smooth = self.tracker.record(track.id, row, frame.t_s)
            self.rows.append(_row(smooth, frame.t_s))
            predictions.append(Prediction(smooth.scores, track.face, crop))
        return draw_faces(frame.image, predictions)


def _row(track: Track, t_s: float) -> dict:
    corners = (round(value, 1) for value in track.face.box_xyxy)
    return {
        "t_s": round(t_s, 3),
        "face": track.id,
        "label": track.label,
        "scores": {name: round(score, 6) for name, score in track.scores.items()},
        "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)),
    }


def show_clip(desk: Desk, upload: Upload, progress: Progress) -> dict:
    """The annotated clip, a timeline of each face as HTML, and every row as CSV and JSON."""
    watcher = Watcher(desk)
    with VideoReader(upload.data) as reader, tempfile.TemporaryDirectory(prefix=UNSWEPT) as folder:
        target, info = Path(folder, "clip.mp4"), reader.info
        steps = rewrite_video(reader, target, watcher.draw, max_frames_per_s=FRAMES_PER_S, max_side_px=SIDE_PX)
        for step in steps:
            # A clip that does not tell its length is counted in seconds up to the longest that is taken.
            share = step.share if step.share is not None else step.t_s / DEFAULT_LIMITS.max_duration_s
            progress.step(math.floor(100 * share), 100)
        clip = target.read_bytes()
    notes = [*reader.notes, *(["The sound is left out of the new clip."] if info.has_audio else [])]
    last_s = max((row["t_s"] for row in watcher.rows), default=0.0)
    record = {
        "file": upload.name,
        "model": desk.model_name,
        "duration_s": info.duration_s,
        "rows": watcher.rows,
        "has_audio": info.has_audio,
        "notes": notes,
    }
    return {
        "html": _result_html(watcher.rows, last_s, notes),
        "json": json.dumps(record, indent=1),
        "csv": rows_to_csv(watcher.rows),
        "mp4": base64.b64encode(clip).decode(),
    }


def rows_to_csv(rows: Sequence[Mapping]) -> str:
    """A line a face and frame: seconds, number of the face, label, box and a column a class; class names defused."""
    named = {name: defuse(name) for name in (rows[0]["scores"] if rows else ())}
    out = io.StringIO()
    columns = ["t_s", "face", "label", "xmin", "ymin", "xmax", "ymax", *named.values()]
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        scores = {named[name]: score for name, score in row["scores"].items()}
        writer.writerow({**row, "label": defuse(row["label"]), **row["box"], **scores})
    return out.getvalue()


def _result_html(rows: Sequence[Mapping], last_s: float, notes: Sequence[str]) -> str:
    tracks: dict[int, list[Mapping]] = defaultdict(list)
    for row in rows:
        tracks[row["face"]].append(row)
    long = {face: track for face, track in tracks.items() if track[-1]["t_s"] - track[0]["t_s"] >= SHORTEST_S}
    shown = sorted(long, key=lambda face: len(long[face]), reverse=True)[:SHOWN_TRACKS]
    timelines = "".join(_timeline(face, long[face], last_s) for face in sorted(shown))
    count = len(tracks)
    summary = "No face found in this clip." if not count else f"{count} {'face' if count == 1 else 'faces'} followed."
    said = "".join(f'<p class="fer-note">{escape(note)}</p>' for note in notes)
    return (
        f'<p class="fer-summary">{summary}</p>{said}<video class="fer-clip" controls playsinline muted></video>'
        '<div class="fer-tools"><span class="fer-save"><span>Download</span>'
        '<button type="button" data-take="mp4">Clip</button><button type="button" data-take="csv">CSV</button>'
        f'<button type="button" data-take="json">JSON</button></span></div>{timelines}'
    )


def _timeline(face: int, rows: Sequence[Mapping], last_s: float) -> str:
    """One face's probabilities over the clip as an SVG with a legend of the classes that ever mattered."""
    width, height = 900.0, 140.0
    names = list(rows[0]["scores"])
    led = {row["label"] for row in rows}
    lines, legend = [], []
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{width * row['t_s'] / max(last_s, 1e-6):.1f},{4 + (height - 8) * (1 - row['scores'][name]):.1f}"
            for row in rows
        )
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="3" points="{points}"/>')
        if max(row["scores"][name] for row in rows) >= NAMED_FROM:
            legend.append(f'<li style="--colour:{colour}">{escape(name)}</li>')
    most = max(led, key=lambda name: sum(row["label"] == name for row in rows))
    span = f"{rows[0]['t_s']:.1f} to {rows[-1]['t_s']:.1f} s"
    return (
        f'<figure class="fer-track-figure"><figcaption>Face {face}, {span}: mostly {escape(most)}</figcaption>'
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="Probabilities of face {face} over the clip">{"".join(lines)}</svg>'
        f'<ul class="fer-legend">{"".join(legend)}</ul></figure>'
    )


def _page_html() -> str:
    limits, codecs = DEFAULT_LIMITS, ", ".join(dict.fromkeys(CODECS.values()))
    hint = (
        f"or drop it here: at most {limits.max_duration_s:.0f} seconds and {limits.max_bytes // MEGABYTE} MB, "
        f"as MP4, MOV, "
        f"WebM, MKV or AVI ({codecs})."
    )
    drop = drop_zone("video", "Choose a clip", hint, accept="video/*,.mkv,.mp4,.mov,.webm,.avi")
    text = "The clip with its faces drawn in appears here, and below it how the probabilities of each face change."
    return frame(NOTICE + drop + JOB_STATUS, placeholder(text), answer_label="Clip", max_bytes=limits.max_bytes)
