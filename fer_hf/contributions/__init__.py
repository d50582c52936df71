"""Pictures that visitors gave with a label and their consent: kept here, sent to the Hub, forgotten on request."""

from .entries import CONSENT, MAX_SIDE_PX, Offer
from .hub_store import HubStore
from .pusher import Pusher
from .repository import ContributionRepo, RepositoryFault
from .store import ContributionStore

__all__ = [
    "CONSENT",
    "MAX_SIDE_PX",
    "ContributionRepo",
    "ContributionStore",
    "HubStore",
    "Offer",
    "Pusher",
    "RepositoryFault",
]
