"""The page: tabs in order, and how it is launched."""

import os
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from huggingface_hub.utils import disable_progress_bars
from starlette.middleware import Middleware

from fer_hf.contributions import ContributionRepo, ContributionStore, HubStore, Pusher
from fer_hf.demo.about import build_about_tab
from fer_hf.demo.api import build_api
from fer_hf.demo.batch import build_batch_tab
from fer_hf.demo.compare import build_compare_tab
from fer_hf.demo.contribute import build_contribute_tab
from fer_hf.demo.jobs import Jobs
from fer_hf.demo.limits import REQUEST_BYTES, BodyLimit, Line
from fer_hf.demo.model import build_model_tab
from fer_hf.demo.photo import build_photo_tab
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.theme import TITLE, build_theme, read_css, read_head
from fer_hf.demo.uploads import keep_uploads_apart
from fer_hf.demo.video import build_video_tab
from fer_hf.demo.webcam import build_webcam_tab

HEADER = (
    '<header class="fer-header"><h1>What does this face seem to express?</h1><p>Give a photo and see each face, the '
    "expression a small neural network perceives in it, how sure it is, and where it looked.</p></header>"
)


def build_page(
    shelf: Shelf, *, line: Line | None = None, store: ContributionStore | HubStore | None = None
) -> gr.Blocks:
    """The whole demo around a shelf of models, not yet launched; with a store, visitors can contribute."""
    line, jobs = line or Line(), Jobs()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 300), fill_width=True) as page:
        gr.HTML(HEADER)
        with gr.Tab("Photo", id="photo"):
            build_photo_tab(shelf, line)
        with gr.Tab("Webcam", id="webcam"):
            build_webcam_tab(shelf, line)
        with gr.Tab("Video", id="video"):
            build_video_tab(shelf, jobs)
        with gr.Tab("Batch", id="batch"):
            build_batch_tab(shelf, jobs)
        with gr.Tab("Compare", id="compare"):
            build_compare_tab(shelf, line)
        with gr.Tab("Model", id="model"):
            build_model_tab(shelf, line)
        with gr.Tab("About", id="about"):
            build_about_tab(shelf)
        if store is not None:
            with gr.Tab("Contribute", id="contribute"):
                build_contribute_tab(shelf, line, store)
        build_api(
            shelf,
            line,
            Line(running=1, waiting=8, seconds=120, advice="and is not waited for; send fewer photos at a time"),
        )
    page.queue(max_size=200, default_concurrency_limit=None)
    return page


def launch_options() -> dict:
    """Arguments for ``Blocks.launch`` that hold wherever the demo runs."""
    keep_uploads_apart()
    return {
        "theme": build_theme(),
        "css": read_css(),
        "head": read_head(),
        "app_kwargs": {"middleware": [Middleware(BodyLimit, max_bytes=REQUEST_BYTES)]},
        "max_file_size": REQUEST_BYTES,
        # The tabs keep nothing for a session, and each one that Gradio remembers costs memory.
        "state_session_capacity": 100,
        "ssr_mode": False,
        "run_history": False,
        "footer_links": ["api"],
        "share": False,
        "pwa": False,
    }


def configured_store(labels: Sequence[str]) -> ContributionStore | HubStore | None:
    """Where visitors' pictures go, as the environment says; None, and no tab, where it says nothing.

    FER_CONTRIBUTIONS is a folder, FER_CONTRIBUTIONS_REPO a data set on the Hub. With both, what is in the folder is
    sent there in the background from now on, with FER_CONTRIBUTIONS_PR=1 as pull requests. The data set alone is for
    where no folder lasts. The Hub is not asked for anything yet. Raises ValueError for a name that cannot be one, and
    for a folder on a Space's own disk, which is lost at every restart.
    """
    folder, repo_id = os.environ.get("FER_CONTRIBUTIONS"), os.environ.get("FER_CONTRIBUTIONS_REPO")
    if folder and os.environ.get("SPACE_ID") and not _is_mounted(Path(folder)):
        raise ValueError(
            f"FER_CONTRIBUTIONS is {folder}, which a restart of the Space deletes; name a folder on storage mounted to "
            "it, or leave it out and set FER_CONTRIBUTIONS_REPO"
        )
    if not repo_id:
        return ContributionStore(folder, labels) if folder else None
    as_pull_requests = os.environ.get("FER_CONTRIBUTIONS_PR", "0")
    if as_pull_requests not in ("0", "1"):
        raise ValueError(f"FER_CONTRIBUTIONS_PR is {as_pull_requests!r}; set it to 1 or 0, or leave it out")
    repo = ContributionRepo(repo_id, as_pull_requests=as_pull_requests == "1")
    disable_progress_bars()  # an upload every minute would fill the log with them
    if not folder:
        return HubStore(repo, labels)
    store = ContributionStore(folder, labels, repo_id)
    Pusher(store, repo).start()
    return store


def _is_mounted(folder: Path) -> bool:
    folder = folder.resolve()
    return next(place for place in (folder, *folder.parents) if place.is_mount()) != Path("/")
