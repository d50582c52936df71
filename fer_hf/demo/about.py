"""The About tab: how it works, how well, what the answer means, what it must not be used for, what is kept."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import gradio as gr

from fer_hf.demo.limits import MEGABYTE
from fer_hf.demo.reports import failures_html, headline_html, read_reports, robustness_html
from fer_hf.demo.shelf import Shelf
from fer_hf.image_io import DEFAULT_LIMITS, FORMATS
from fer_hf.video import DEFAULT_LIMITS as CLIP_LIMITS

MEANING = """
<h2>What the answer means</h2>
<p>The model says which expression people would <em>perceive</em> in a face: it learned from photos that people had
labelled by looking at them. An expression is not a feeling. People smile when they are sad, frown when they
concentrate, and differ by person and by culture in what they show. Nobody's inner state can be read from a photo.</p>
<h2>What it must not be used for</h2>
<p>Not for decisions about people: no hiring, no grading, no monitoring at work or at school, no policing, no border
control, no medical or legal judgement. In the EU, systems that infer emotions at work and in education are prohibited
(AI Act, Article 5). Use it to learn how such models work and where they fail.</p>
<h2>How it works</h2>
<ol>
<li>The picture is decoded within limits, turned upright and brought to sRGB.</li>
<li>MTCNN finds the faces and five points on each: eyes, nose and corners of the mouth.</li>
<li>Each face is turned and scaled so that these points lie where they lay in the training pictures.</li>
<li>A small neural network gives each expression a probability. They are calibrated: of the answers given with 70%,
about 70% are right on pictures like those it was measured on.</li>
<li>Grad-CAM shows which parts of the face spoke for an expression; the network's own gates can be shown too.</li>
</ol>
"""
PRIVACY = """
<h2>What happens to pictures</h2>
<p>They are held in memory while they are looked at and dropped with the answer. A clip is written to a temporary file
that is deleted when it has been sent back. No log holds pictures or file names, no statistics are collected, there are
no cookies for tracking, and the page asks no other server for anything. Only what you give on the Contribute tab, where
there is one, is stored: with your consent, and until you withdraw it.</p>
"""
LICENCES = """
<h2>Licences</h2>
<p>The code is under the MIT licence; a model's own licence is on its card. The example portraits are works of the US
government (NASA, US Navy) and in the public domain. MTCNN's weights come with facenet-pytorch (MIT). HEIC is read with
libheif (LGPL) and x265 (GPLv2); clips are read and written with FFmpeg and x264 (GPL).</p>
"""


def build_about_tab(shelf: Shelf) -> gr.HTML:
    """The tab's text, with the measured figures of the models that are here."""
    return gr.HTML(about_html(shelf), elem_id="about", apply_default_css=False)


def about_html(shelf: Shelf) -> str:
    """All of it; figures come from the reports beside the weights, and where there are none it says so."""
    first = shelf.first
    folders = ({} if first.folder is None else {first.model_name: first.folder}) | shelf.folders
    return f'<div class="fer-prose">{MEANING}{_figures(folders)}{PRIVACY}{_limits()}{LICENCES}</div>'


def _figures(folders: Mapping[str, Path]) -> str:
    parts = []
    for name, folder in folders.items():
        if table := headline_html(folder):
            parts.append(
                f"<h3>{escape(name)}</h3>{table}{failures_html(read_reports(folder)[0])}{robustness_html(folder)}"
            )
    text = (
        "<p>Brackets are 95% intervals. ECE is the mean gap between the probability given and the share of right "
        "answers.</p>"
    )
    nothing = "<p>The models that are loaded here carry no report of an evaluation.</p>"
    return "<h2>How well it does, and where it fails</h2>" + ("".join(parts) + text if parts else nothing)


def _limits() -> str:
    formats = ", ".join(FORMATS)
    photo, clip = DEFAULT_LIMITS, CLIP_LIMITS
    return (
        f"<h2>Limits</h2><p>Photos: {formats}, at most {photo.max_bytes // MEGABYTE} MB and "
        f"{photo.max_pixels // MEGABYTE} million pixels. Clips: at most {clip.max_duration_s:.0f} seconds and "
        f"{clip.max_bytes // MEGABYTE} MB. When too many people ask at once the page says so.</p>"
    )
