"""What the tabs have in common: a component around a script's function, a panel that asks, and one that answers."""

from collections.abc import Callable, Sequence

import gradio as gr

from fer_hf.demo.limits import MEGABYTE, REQUEST_BYTES

PHOTO_FILES = "image/*,.heic,.heif,.avif,.tif,.tiff,.bmp,.webp,.gif"
STATUS = (
    '<p class="fer-error" role="alert"></p><p class="fer-progress" role="status"></p>'
    '<p class="fer-said" role="status"></p>'  # for screen readers: the answer's summary
)
JOB_STATUS = (
    f'{STATUS}<progress class="fer-meter" hidden aria-label="Progress"></progress>'
    '<button class="fer-button fer-cancel" type="button" hidden>Stop</button>'
)
NOTICE = (
    '<div class="fer-notice" role="note"><strong>Before you give a picture.</strong> It is sent to the server this '
    "page comes from, looked at for a moment and forgotten: nothing is kept, nobody else gets it. The answer is the "
    "expression a model <em>perceives</em> in a face, which is not what the person feels. It must not be used for "
    "decisions about people at work, at school or by the police.</div>"
)


def tab_component(name: str, html: str, script: str, functions: Sequence[Callable]) -> gr.HTML:
    """A tab's one component: its page, the script call that brings it to life, and what that may call on the server."""
    return gr.HTML(html, js_on_load=script, server_functions=list(functions), elem_id=name, apply_default_css=False)


LARGEST_FILE = REQUEST_BYTES - MEGABYTE
"""The largest file of any kind that a page sends: the request holds a little more than it."""


def frame(ask: str, answer: str, *, answer_label: str, max_bytes: int = 0) -> str:
    """The two panels of a tab, side by side where there is room; ``max_bytes`` is what its script lets through."""
    return (
        f'<div class="fer" data-max-bytes="{max_bytes}" data-max-request="{LARGEST_FILE}">'
        f'<div class="fer-ask">{ask}</div>'
        f'<div class="fer-answer" role="region" aria-label="{answer_label}">{answer}</div></div>'
    )


def drop_zone(
    name: str, button: str, hint: str, *, accept: str = PHOTO_FILES, many: bool = False, more: str = ""
) -> str:
    """A place to choose or drop files, with its hint; ``more`` is further buttons."""
    multiple = " multiple" if many else ""
    return (
        f'<div class="fer-drop"><input class="fer-file" type="file" id="fer-{name}-file" accept="{accept}"{multiple}>'
        f'<label class="fer-button fer-primary" for="fer-{name}-file">{button}</label>{more}'
        f'<p class="fer-hint">{hint}</p></div>'
    )


def placeholder(text: str) -> str:
    """What an answering panel says before there is an answer."""
    return f'<p class="fer-placeholder">{text}</p>'
