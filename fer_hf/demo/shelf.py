"""The models of the demo: the embedded ones and those a visitor names on the Hub, loaded once for everybody."""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from fer_hf.demo.desk import Desk
from fer_hf.demo.limits import WORKERS, Line
from fer_hf.hub import ModelError, default_model_path, load_model, model_folders
from fer_hf.recognition import ExpressionRecognizer

HUB_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}(@\w[\w./-]{0,95})?")
KEPT_MODELS = 16
"""Models kept in memory, beside the first one, which stays; the one not used for longest goes first."""
LOAD_S = 120.0
"""How long a visitor waits for a model; the load itself goes on."""
MAX_PARAMETERS = 350_000_000
"""Larger models than a ViT-L would fill the memory that all visitors share."""
KEPT_PARAMETERS = 2 * MAX_PARAMETERS
"""What all models kept have at most, whatever visitors ask for."""


def embedded_models() -> dict[str, Path]:
    """Name and folder of every model and described ensemble that ships with the project, the default first."""
    default = default_model_path()
    folders = model_folders(default.parent) if default.is_dir() else []
    if default.parent.name != "model_cards":
        folders = [default]
    return {path.name: path for path in sorted(folders, key=lambda path: (path != default, path.name))}


class Shelf:
    """Desks by the name of their model, all with the same detector.

    ``first`` serves whoever asks for no model. ``folders`` are those of the embedded models by name; ``load`` makes
    the desk of a name.
    """

    def __init__(self, first: Desk, folders: Mapping[str, Path], load: Callable[[str], Desk]) -> None:
        self.first, self.folders, self._load = first, dict(folders), load
        self._desks: OrderedDict[str, Desk] = OrderedDict()
        self._lock = threading.Lock()
        # One at a time in each, so that two visitors who want the same model wait for one load; what comes from the
        # Hub, however slowly, keeps nobody waiting who wants an embedded one.
        self._embedded_line, self._hub_line = (
            Line(running=1, waiting=16, seconds=LOAD_S, advice="and goes on; try again in a moment") for _ in range(2)
        )

    async def ready(self, name: str = "") -> Desk:
        """The desk of an embedded model or of a Hub id, ``user/name@revision``; the first one for an empty name.

        Loading waits in a line of its own, so that nobody who needs none waits for it. Raises ModelError, and Refused
        where that takes too long or the line is full.
        """
        return self._at_hand(name) or await self._line_for(name).run(self._load_once, name)

    def desk(self, name: str = "") -> Desk:
        """The same for a caller that is a thread of its own."""
        return self._at_hand(name) or self._line_for(name).run_blocking(self._load_once, name)

    async def ready_to_compare(self) -> list[Desk]:
        """The desks of all embedded models; the first one alone where none is embedded."""
        return [await self.ready(name) for name in self.folders] or [self.first]

    def _at_hand(self, name: str) -> Desk | None:
        if name in ("", self.first.model_name):
            return self.first
        with self._lock:
            if name in self._desks:
                self._desks.move_to_end(name)
            return self._desks.get(name)

    def _line_for(self, name: str) -> Line:
        """The line in which a model is loaded. Raises ModelError for a name that can be none."""
        if name in self.folders:
            return self._embedded_line
        if not HUB_ID.fullmatch(name) or Path(name).exists():
            raise ModelError(repr(name), "give a Hub id such as user/name, or one of the embedded models")
        return self._hub_line

    def _load_once(self, name: str) -> Desk:
        if desk := self._at_hand(name):
            return desk
        desk = self._load(name)
        with self._lock:
            # Under the pinned name only, so that a Hub id without a revision is looked up anew.
            desk = self._desks.setdefault(desk.model_name, desk)
            while len(self._desks) > KEPT_MODELS or self._parameters() > KEPT_PARAMETERS:
                self._desks.popitem(last=False)
            return desk

    def _parameters(self) -> int:
        return sum(desk.count_parameters() or 0 for desk in self._desks.values())


def open_shelf(model: str) -> Shelf:
    """The shelf whose first model is given by path or Hub id. Raises ModelError where that one cannot be loaded."""
    # A core for each visitor being served: threads of one answer that wait for those of another cost ten times as much.
    torch.set_num_threads(max((os.cpu_count() or 1) // WORKERS, 1))
    folders = embedded_models()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recognizer = ExpressionRecognizer.from_pretrained(model, device=device)

    def load(name: str) -> Desk:
        loaded = load_model(folders.get(name, name), max_bytes=4 * MAX_PARAMETERS)  # of four bytes each
        parameters = sum(weights.numel() for weights in loaded.model.parameters())
        if parameters > MAX_PARAMETERS:
            limit = f"{MAX_PARAMETERS / 1e6:.0f} million"
            raise ModelError(name, f"it has {parameters / 1e6:.0f} million parameters and this server takes {limit}")
        shared = ExpressionRecognizer.from_model(loaded.model.to(device), loaded.processor, recognizer.detector)
        source = name if loaded.revision is None else f"{name.partition('@')[0]}@{loaded.revision}"
        return Desk(shared, str(folders[name]) if name in folders else source)

    return Shelf(Desk(recognizer, model), folders, load)
