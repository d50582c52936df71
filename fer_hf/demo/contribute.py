"""The Contribute tab: correct a label, or offer labelled photos in a zip; stored only with consent, withdrawable."""

import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePosixPath

import gradio as gr
from PIL import Image

from fer_hf.contributions import CONSENT, ContributionStore, HubStore, Offer
from fer_hf.contributions.entries import key_of
from fer_hf.demo.archives import MAX_FILES, count_files, unpack
from fer_hf.demo.calls import answer, files_of, first_file
from fer_hf.demo.desk import Desk
from fer_hf.demo.job_calls import job_calls
from fer_hf.demo.jobs import Jobs, Progress
from fer_hf.demo.limits import Line, Refused
from fer_hf.demo.markup import data_url
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.tabs import JOB_STATUS, PHOTO_FILES, drop_zone, frame, placeholder, tab_component
from fer_hf.demo.uploads import Upload
from fer_hf.faces import Face, align_face
from fer_hf.image_io import DEFAULT_LIMITS, ImageError
from fer_hf.labels import canonical_label

FACE_PX = 256
FACE_MARGIN = 0.5
"""Room around the face box, so that the picture can be aligned again to any model's framing."""
SHOWN_REASONS = 20

Store = ContributionStore | HubStore

logger = logging.getLogger(__name__)


def build_contribute_tab(shelf: Shelf, line: Line, store: Store) -> gr.HTML:
    """The tab's one component.

    Whatever stores something is a job: its page fetches the id, and what nobody fetches the id of is taken back.
    """
    late = "and goes on; ask again in a moment"
    withdrawing = Line(running=1, waiting=16, seconds=180, advice=late)  # the Hub takes longer than a photo

    async def find(form) -> dict:
        return await answer(line, lambda: {"html": show_faces(shelf.first, first_file(form), store.labels)})

    async def withdraw(receipt) -> dict:
        return await answer(withdrawing, lambda: withdraw_given(store, str(receipt)))

    def prepare(form):
        uploads, consent = files_of(form), form.data.get("consent") == "yes"
        if "face" in form.data:
            number, label = int(form.data["face"]), str(form.data.get("label", ""))

            def give(progress: Progress) -> dict:
                progress.step(0, 1)
                return give_face(shelf.first, store, uploads[0], number, label, consent)

            return give
        keep = form.data.get("keep") == "yes"
        count_files(uploads)
        return lambda progress: take_zip(shelf.first, store, uploads, progress, keep=keep, consent=consent)

    def undo(given: dict) -> None:
        if "receipt" in given:
            take_back(store, given["receipt"])

    calls = [find, withdraw, *job_calls(Jobs(), prepare, undo)]
    return tab_component("contribute", _page_html(store), "fer.contributeTab(element, server)", calls)


def show_faces(desk: Desk, upload: Upload, labels: Sequence[str]) -> str:
    """A row a face: its picture as it would be stored, what was perceived, and a choice of the right label."""
    found = desk.recognize(upload)
    if not found.predictions:
        raise Refused("No face found in this photo; choose another.")
    rows = []
    for number, one in enumerate(found.predictions):
        options = "".join(
            f"<option{' selected' if name == one.label else ''}>{escape(name)}</option>" for name in labels
        )
        picture = data_url(cut_face(found.photo, one.face), "JPEG", quality=85)
        rows.append(
            f'<article class="fer-face" data-face="{number}"><div class="fer-crop fer-still"><img src="{picture}" '
            f'alt="Face {number + 1} as it would be stored"></div><div class="fer-face-text"><h3>Perceived as '
            f'{escape(one.label)}</h3><label class="fer-field">What do you see? <select>{options}</select></label>'
            '<button class="fer-button fer-primary" type="button" data-give>Give this picture</button></div></article>'
        )
    return "".join(rows)


def cut_face(photo: Image.Image, face: Face) -> Image.Image:
    """The face with some room around it, square, at most ``FACE_PX``: nothing else of the photo is stored."""
    side = max(face.box_xyxy[2] - face.box_xyxy[0], face.box_xyxy[3] - face.box_xyxy[1]) * (1 + FACE_MARGIN)
    size_px = max(min(round(side), FACE_PX), 1)
    return align_face(photo, face, template=None, size_px=size_px, margin=FACE_MARGIN).crop


def give_face(desk: Desk, store: Store, upload: Upload, number: int, label: str, consent: bool) -> dict:
    """The receipt for one face of a photo, stored with the label its giver chose."""
    _require_consent(consent)
    predictions = (found := desk.recognize(upload)).predictions
    if not 0 <= number < len(predictions):
        raise Refused("This face is not in the photo any more; choose the photo again.")
    one = predictions[number]
    return {"receipt": _store(store, [Offer(cut_face(found.photo, one.face), label, one.label)])}


def _require_consent(consent: bool) -> None:
    if not consent:
        raise Refused("Tick the consent above first; nothing was stored.")


def withdraw_given(store: Store, receipt: str) -> dict:
    """What to tell someone who withdraws with a receipt."""
    try:
        count = store.withdraw(receipt)
    except ValueError as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused("The store cannot be written to at the moment; nothing was withdrawn.") from error
    if not count:
        raise Refused("Nothing is stored under this id.")
    said = f"Withdrawn: {count}. What was not given under another id too is deleted."
    if isinstance(store, ContributionStore) and store.repo_id:
        said += f" The data set {store.repo_id} follows within minutes of the Hub being reachable."
    return {"said": said}


def take_back(store: Store, receipt: str) -> None:
    """Withdraw what was stored after its giver had stopped it or left, and has no id to do it with."""
    try:
        store.withdraw(receipt)
    except (ValueError, OSError) as error:
        logger.warning(
            "A contribution that its giver knows nothing of stays; its key is %s: %s", key_of(receipt), error
        )


def _store(store: Store, offers: Sequence[Offer]) -> str:
    try:
        return store.add(offers, consent=True)
    except ValueError as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused("The store cannot be written to at the moment; nothing was stored.") from error


@dataclass(frozen=True)
class Audit:
    """What a zip of labelled photos holds: offers that can be taken, and a reason for each file that cannot."""

    offers: list[Offer]
    rejected: list[tuple[str, str]]


def audit_zip(desk: Desk, store: Store, uploads: Sequence[Upload], progress: Progress) -> Audit:
    """Look at every photo; the folder it lies in is its label, as in ``happy/anna.jpg``."""
    total, seen = count_files(uploads), set()
    offers, rejected = [], []
    for number, upload in enumerate(unpack(uploads, with_folders=True)):
        progress.step(number, total)
        try:
            offer = _offer_of(desk, store, upload)
        except (ImageError, Refused) as error:
            rejected.append((upload.name, str(error)))
            continue
        pixels = offer.picture.tobytes()
        if pixels in seen or store.holds(offer.picture):
            rejected.append((upload.name, "The same picture is there already."))
            continue
        seen.add(pixels)
        offers.append(offer)
    return Audit(offers, rejected)


def _offer_of(desk: Desk, store: Store, upload: Upload) -> Offer:
    label = _label_of(PurePosixPath(upload.name).parent.name, store.labels)
    found = desk.recognize(upload)
    if len(found.predictions) != 1:
        raise Refused(f"{len(found.predictions)} faces; a labelled photo must show exactly one.")
    one = found.predictions[0]
    return Offer(cut_face(found.photo, one.face), label, one.label)


def _label_of(folder: str, labels: Sequence[str]) -> str:
    """The label, as it is collected here, that a folder's name stands for."""
    try:
        meant = canonical_label(folder)
    except ValueError as error:
        raise Refused(f"The folder {folder!r} is no expression; use {', '.join(labels)}.") from error
    for label in labels:
        with contextlib.suppress(ValueError):  # a model may have classes that are no expressions
            if canonical_label(label) == meant:
                return label
    raise Refused(f"{meant} is not collected here; use {', '.join(labels)}.")


def take_zip(
    desk: Desk, store: Store, uploads: Sequence[Upload], progress: Progress, *, keep: bool, consent: bool
) -> dict:
    """The audit as HTML; with ``keep`` what passed is stored as well, under one receipt."""
    if keep:
        _require_consent(consent)
    audit = audit_zip(desk, store, uploads, progress)
    if keep:
        if not audit.offers:
            raise Refused("No photo of this zip can be taken; nothing was stored.")
        progress.step(progress.total, progress.total)
        return {"receipt": _store(store, audit.offers), "html": ""}
    return {"html": _audit_html(audit), "takeable": len(audit.offers)}


def _audit_html(audit: Audit) -> str:
    counts = Counter(offer.label for offer in audit.offers)
    agree = sum(offer.label == offer.predicted for offer in audit.offers)
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{number}</td></tr>' for name, number in counts.most_common())
    reasons = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in audit.rejected[:SHOWN_REASONS])
    more = len(audit.rejected) - SHOWN_REASONS
    reasons += f"<li>… and {more} more</li>" if more > 0 else ""
    button = '<button class="fer-button fer-primary" type="button" data-give-zip>Give these photos</button>'
    photos = "photo" if len(audit.offers) == 1 else "photos"
    return (
        f'<p class="fer-summary">{len(audit.offers)} {photos} can be taken, {len(audit.rejected)} cannot. For {agree} '
        "the model perceives the same.</p>"
        f'<table class="fer-table"><tbody>{rows}</tbody></table><ul>{reasons}</ul>{button if rows else ""}'
    )


def what_happens(store: Store) -> str:
    """Where a given picture goes, when, and how it gets away again."""
    if not store.repo_id:
        return (
            "It stays on this server, where its operator looks at it and may put it into a data set. With your id you "
            "can withdraw it; it is then deleted here at once. Data sets and models made of it before keep it."
        )
    name = escape(store.repo_id)
    if isinstance(store, HubStore):
        first = f"It is sent to the data set {name} on the Hugging Face Hub; you get your id once it is there."
        gone = "at once there, from its history too"
    else:
        first = (
            f"It is kept on this server and sent to the data set {name} on the Hugging Face Hub, as a rule within a "
            "minute."
        )
        gone = "at once here, and within minutes there, from its history too"
    return (
        f"{first} Whoever may see that data set sees your picture from then on, before anyone has reviewed it; "
        f"training uses it only after a review. With your id you can withdraw it; it is then deleted {gone}. Copies "
        "that others made before, and models trained with it, are out of reach."
    )


def _page_html(store: Store) -> str:
    notice = (
        '<div class="fer-notice" role="note"><strong>What is stored.</strong> Only what you give with the '
        "button: the face "
        "with a little room around it, encoded anew without metadata, your label, what the "
        "model had said, the time, and a hash of the text below that you agree to. You get an "
        f"id with which you can withdraw it. Looking at a photo here stores nothing.<p>{what_happens(store)}</p></div>"
        f'<p><label><input type="checkbox" name="consent"> {escape(CONSENT)}</label></p>'
    )
    hint = (
        f"A zip holds at most {MAX_FILES} photos of one face each, in folders named by their expression, such as "
        "happy/1.jpg. It is checked first, and you see the result before anything is stored."
    )
    drop = drop_zone("contribute", "Choose a photo or a zip", hint, accept=f"{PHOTO_FILES},.zip")
    withdraw = (
        '<form class="fer-withdraw"><label class="fer-field">Withdraw what you gave <input name="receipt" '
        'placeholder="your id" autocomplete="off"></label><button class="fer-button" '
        'type="submit">Withdraw</button></form>'
    )
    text = placeholder("The faces of your photo appear here, each with a choice of labels.")
    receipts = '<div class="fer-receipts" role="log" aria-label="Ids of what you gave"></div>'
    ask = notice + drop + JOB_STATUS + receipts + withdraw
    return frame(ask, text, answer_label="Your pictures", max_bytes=DEFAULT_LIMITS.max_bytes)
