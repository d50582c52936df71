"""Decide which contributions may be trained on: ``python training/review_contributions.py list|sheet|accept|reject``.

Every run first brings the review's folder up to date with the contributions, a local store's folder or a data set on
the Hub: what was withdrawn goes, from the accepted pictures too. ``REVIEW/accepted`` is a source that training reads.
"""

import argparse
import contextlib
import fcntl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_hf.contributions.entries import now
from fer_hf.contributions.log import append_lines
from fer_hf.labels import canonical_label
from training.review_folder import Entry, Review, write_accepted
from training.review_sheet import contact_sheet
from training.review_sources import bring_up_to_date, known_pictures

STATES = ("waiting", "accepted", "rejected")
SHEET_ENTRIES = 60


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contributions", required=True, help="a store's folder, or user/name on the Hub")
    parser.add_argument("--review", required=True, type=Path, help="folder with the decisions and what was accepted")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="what waits, or what was decided")
    sheet = commands.add_parser("sheet", help="a picture file that shows them")
    for command in (listing, sheet):
        command.add_argument("--state", choices=STATES, default="waiting", help="default: %(default)s")
    listing.add_argument("--existing", nargs="*", default=[], help="sources whose pictures should not come twice")
    sheet.add_argument("--output", required=True, type=Path, help="the picture file, such as sheet.png")
    sheet.add_argument("--page", type=int, default=1, help=f"of {SHEET_ENTRIES} pictures each")
    accept = commands.add_parser("accept", help="let entries into the accepted split")
    accept.add_argument("--label", help="where the reviewer sees something else than the giver")
    reject = commands.add_parser("reject", help="keep entries out of it")
    for command in (accept, reject):
        command.add_argument("ids", nargs="+", metavar="ID", help="as list and sheet name them")
    return parser.parse_args(argv)


def show_list(review: Review, state: str, existing: Sequence[str]) -> list[str]:
    """A line for each entry of a state, oldest first, with the pictures that it is an exact copy of."""
    entries = list(review.entries())
    copies = copies_of(entries, known_pictures(existing))
    lines = []
    for entry in entries:
        if review.state(entry) == state:
            said = [entry.id, review.label(entry), f"model: {entry.predicted or 'not asked'}", entry.time]
            lines.append("  ".join([*said, *(f"same picture as {name}" for name in copies[entry.id])]))
    return lines


def copies_of(entries: Sequence[Entry], known: dict[str, str]) -> dict[str, list[str]]:
    """For the id of each entry the known picture, and the earlier entry, that have exactly its pixels."""
    first: dict[str, str] = {}
    found = {}
    for entry in entries:
        pixels = entry.pixel_sha256()
        found[entry.id] = [names[pixels] for names in (known, first) if pixels in names]
        first.setdefault(pixels, entry.id)
    return found


def decide(review: Review, ids: Sequence[str], decision: str, label: str | None = None) -> None:
    """Append decisions to those that there are; the last one on an entry holds. All are noted, or none."""
    there = {entry.id for entry in review.entries()}
    unknown = [name for name in ids if name not in there]
    if unknown:
        raise ValueError(f"there is no entry {unknown[0]} (withdrawn, or mistyped); nothing was decided")
    line = {"decision": decision, "time": now()} | ({"label": canonical_label(label)} if label else {})
    append_lines(review.decisions, [{"entry": name, **line} for name in ids])


def run(arguments: argparse.Namespace) -> list[str]:
    """What to print."""
    review = Review(arguments.review)
    with _alone(review):
        bring_up_to_date(arguments.contributions, review)
        if arguments.command in ("accept", "reject"):
            decision = {"accept": "accepted", "reject": "rejected"}[arguments.command]
            decide(review, arguments.ids, decision, getattr(arguments, "label", None))
        accepted = write_accepted(review)
        if arguments.command == "list":
            lines = show_list(review, arguments.state, arguments.existing)
        elif arguments.command == "sheet":
            lines = [save_sheet(review, arguments.state, arguments.page, arguments.output)]
        else:
            lines = []
        counts = review.counts()
    told = ", ".join(f"{counts[state]} {state}" for state in STATES)
    return [*lines, f"{told}; {accepted} are in {review.accepted}"]


def save_sheet(review: Review, state: str, page: int, output: Path) -> str:
    """Write one page of the contact sheet; returns what it shows. Raises ValueError where there is no such page."""
    entries = [entry for entry in review.entries() if review.state(entry) == state]
    pages = -(-len(entries) // SHEET_ENTRIES)
    if not 1 <= page <= pages:
        raise ValueError(f"--page is {page}; there are {pages} pages of {state} entries")
    shown = entries[(page - 1) * SHEET_ENTRIES : page * SHEET_ENTRIES]
    contact_sheet([(entry, review.label(entry)) for entry in shown]).save(output)
    return f"{output} shows {len(shown)} {state} entries, page {page} of {pages}"


@contextlib.contextmanager
def _alone(review: Review) -> Iterator[None]:
    with (review.folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(argv: list[str] | None = None) -> int:
    print("\n".join(run(parse_arguments(argv))))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"review_contributions.py: {error}")
