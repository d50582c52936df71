"""Contributions where nothing local lasts: they go straight to the Hub, and are acknowledged once it has them."""

import hashlib
import logging
import threading
import time
from collections.abc import Sequence

from PIL import Image

from .entries import (
    Offer,
    check_offers,
    from_parquet,
    key_of,
    new_receipt,
    picture_name,
    png_bytes,
    prepare,
    to_parquet,
)
from .repository import ContributionRepo, RepositoryFault

PATIENCE_S = 15.0
"""How long a visitor waits while the Hub fails; a request under way then may take its time on top."""
FIRST_WAIT_S = 1.0

logger = logging.getLogger(__name__)


class HubStore:
    """What ``ContributionStore`` offers, kept on the Hub alone, for a disk that is lost at restart."""

    def __init__(self, repo: ContributionRepo, labels: Sequence[str]) -> None:
        self.repo, self.labels = repo, tuple(labels)
        self._one = threading.Lock()  # commits at the same moment would only refuse each other

    @property
    def repo_id(self) -> str:
        return self.repo.id

    def add(self, offers: Sequence[Offer], *, consent: bool) -> str:
        """The receipt with which all the offers can be withdrawn; the Hub has them in a commit when it is returned.

        Raises ValueError, as ``ContributionStore.add`` does, and where the Hub does not take them: then nothing of
        them is there, or, if the Hub broke off and cannot be asked, the sentence says so and names the receipt.
        """
        check_offers(offers, self.labels, consent=consent)
        receipt, shared = new_receipt()
        prepared = [prepare(offer.picture) for offer in offers]
        names = [picture_name(picture) for picture in prepared]
        entries = [
            {**shared, "picture": name, "label": offer.label, "predicted": offer.predicted}
            for name, offer in zip(names, offers, strict=True)
        ]
        data = to_parquet(entries, {name: png_bytes(picture) for name, picture in zip(names, prepared, strict=True)})
        with self._one:
            self._send(receipt, data)
        return receipt

    def withdraw(self, receipt: str) -> int:
        """How many pictures were withdrawn and are gone from the Hub, history included; 0 for an unknown receipt.

        Raises ValueError where the Hub does not do it; it can be repeated with the same receipt.
        """
        key = key_of(receipt)
        with self._one:
            try:
                data = self.repo.read(key)
                was_there = self.repo.remove({key: None})  # from history too, where no commit shows it any more
            except RepositoryFault as fault:
                raise ValueError(f"This is not withdrawn yet; keep your id and try again later. {fault}") from fault
        return len(from_parquet(data)) if data else int(was_there)

    def holds(self, picture: Image.Image) -> bool:
        """Never: finding equal pictures among all that is on the Hub is left to the review."""
        return False

    def _send(self, receipt: str, data: bytes) -> None:
        key, deadline, wait_s, sent = key_of(receipt), time.monotonic() + PATIENCE_S, FIRST_WAIT_S, False
        while True:
            try:
                self.repo.add({key: data})
                return
            except RepositoryFault as fault:
                sent, wait_s = sent or fault.sent, max(wait_s, fault.retry_after_s or 0)
                if not fault.passing or time.monotonic() + wait_s > deadline:
                    logger.warning("A contribution was not taken: %s", fault)
                    self._undo(key, data, receipt, fault, sent)
                    raise ValueError(f"Nothing was stored. {fault}") from fault
            time.sleep(wait_s)
            wait_s *= 2

    def _undo(self, key: str, data: bytes, receipt: str, fault: RepositoryFault, sent: bool) -> None:
        """Take back what may have arrived, so that what the visitor is told is true."""
        if not sent:
            return
        try:
            self.repo.remove({key: hashlib.sha256(data).hexdigest()})
        except RepositoryFault as second:
            raise ValueError(
                f"The Hub broke off while it took this, and it may have kept it; withdraw it later with the id "
                f"{receipt}. {second}"
            ) from fault
