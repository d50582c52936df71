"""The Model tab: which model answers on this page, where it came from, its card and its figures."""

import re
from html import escape
from pathlib import Path

import gradio as gr

from fer_hf.demo.calls import answer_of
from fer_hf.demo.desk import Desk
from fer_hf.demo.limits import Line
from fer_hf.demo.markup import data_url
from fer_hf.demo.reports import headline_html
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.tabs import STATUS, frame, tab_component
from fer_hf.image_io import read_image

SHOWN_FIGURES = ("confusion", "per_class", "reliability", "robustness")


def build_model_tab(shelf: Shelf, line: Line) -> gr.HTML:
    """The tab's one component."""

    async def load(name) -> dict:
        def show(desk: Desk) -> dict:
            return {"html": show_model(desk), "model": desk.model_name}

        return await answer_of(shelf.ready(str(name).strip()), line, show)

    return tab_component("model", _page_html(shelf), "fer.modelTab(element, server)", [load])


def show_model(desk: Desk) -> str:
    """What is loaded: name, place, size, classes, headline figures, card and figures of an embedded one."""
    facts = {
        "From": _place_of(desk),
        "Kind": desk.kind(),
        "Parameters": "unknown" if desk.count_parameters() is None else f"{desk.count_parameters():,}",
        "Classes": ", ".join(desk.recognizer.labels),
        "Attention": ", ".join(desk.recognizer.attention_names) or "none",
        "Weights": "safetensors; code from elsewhere is never run",
    }
    rows = "".join(f"<tr><th scope=row>{key}</th><td>{escape(value)}</td></tr>" for key, value in facts.items())
    card = "" if desk.folder is None else _card_html(desk.folder)
    return (
        f'<section class="fer-result"><h2>{escape(desk.model_name)}</h2>'
        f'<table class="fer-table"><tbody>{rows}</tbody></table>{card}</section>'
    )


def _place_of(desk: Desk) -> str:
    if desk.folder:
        return "this server (embedded)"
    revision = desk.model_name.partition("@")[2]
    return f"the Hub, pinned to {revision}" if revision else "the Hub, at its newest revision when the server started"


def _card_html(folder: Path) -> str:
    """Headline figures, pictures and the text of an embedded model's card."""
    figures = "".join(
        f'<img src="{data_url(read_image(path).image, "PNG")}" alt="{escape(path.stem.replace("_", " "))}">'
        for path in (folder / f"{name}.png" for name in SHOWN_FIGURES)
        if path.is_file()
    )
    card = folder / "README.md"
    text = re.sub(r"\A---\n.*?\n---\n", "", card.read_text("utf-8"), flags=re.DOTALL) if card.is_file() else ""
    fold = f"<details><summary>Model card</summary><pre>{escape(text.strip())}</pre></details>" if text else ""
    return f'{headline_html(folder)}<div class="fer-figures">{figures}</div>{fold}'


def _page_html(shelf: Shelf) -> str:
    embedded = dict.fromkeys((shelf.first.model_name, *shelf.folders))
    options = "".join(f'<option value="{escape(name, quote=True)}">' for name in embedded)
    form = f"""<form class="fer-drop">
      <label class="fer-field">Embedded model or Hub id
        <input list="fer-models" name="model" value="{escape(shelf.first.model_name, quote=True)}" autocomplete="off"
          spellcheck="false"></label>
      <datalist id="fer-models">{options}</datalist>
      <button class="fer-button fer-primary" type="submit">Load and use it on this page</button>
      <p class="fer-hint">Embedded here: {escape(", ".join(embedded))}.</p>
      <p class="fer-hint">A Hub id is user/name or user/name@revision; without a revision it is pinned to the newest.
        Only safetensors are read, and no code of others is run. It answers on this page only, until you reload.</p>
    </form>"""
    return frame(form + STATUS, show_model(shelf.first), answer_label="Model")
