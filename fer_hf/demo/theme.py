"""How the page looks: a theme on fonts every system has, so that none is fetched, and the page's style and script."""

import re
from pathlib import Path

import gradio as gr

STATIC = Path(__file__).parent / "static"
TITLE = "Perceived facial expressions"
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def build_theme() -> gr.themes.Base:
    """The Gradio theme: teal on slate, light and dark."""
    theme = gr.themes.Base(primary_hue="teal", secondary_hue="teal", neutral_hue="slate", font=_SANS, font_mono=_MONO)
    return theme.set(body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950")


def read_css() -> str:
    """The style sheet of the tabs."""
    return (STATIC / "page.css").read_text(encoding="utf-8")


def read_head() -> str:
    """What goes into the page's head: a description, the frame's style, and the script whose functions the tabs call.

    The script is the files of ``static`` one after the other in a function of its own, so that nothing else of the page
    meets their names.
    """
    files = sorted(STATIC.glob("*.js"))
    script = "\n".join(path.read_text(encoding="utf-8") for path in files)
    tabs = ", ".join(sorted(set(re.findall(r"^function (\w+Tab)\(", script, re.MULTILINE))))
    return (
        '<meta name="description" content="See which facial expression a small model perceives in a photo, how sure it '
        'is and where it looked.">\n'
        f"<style>{(STATIC / 'frame.css').read_text(encoding='utf-8')}</style>\n"
        f'<script>window.fer = (() => {{\n"use strict";\n{script}\nreturn {{ {tabs} }};\n}})();</script>'
    )
