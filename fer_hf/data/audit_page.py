"""The page of an audit: one HTML file with its pictures inside, for a browser without a network."""

import base64
import io
from collections.abc import Sequence
from html import escape

import datasets
import numpy as np

from fer_hf.data.audit_style import CSS

_PICTURE_PX = 96  # larger pictures are shown smaller
_SAMPLES_A_CLASS = 16
_MOST_CARDS = 40
_LEVEL_NAMES = {"leak": "Leak", "problem": "Problem", "note": "Note"}


def audit_page(found: dict, source: datasets.DatasetDict, title: str) -> str:
    """The HTML of an audit (what ``audit_splits`` gave for the same source)."""
    album = _Album(source)
    parts = [
        _header(found, title),
        _section("Findings", "What to know before training, the gravest first.", _findings(found)),
        _section("Classes", "Rows of each class in each split.", _classes(found)),
        _section("Samples", "Pictures of each class, drawn at random.", _samples(source, album)),
        _across(found, album),
        _conflicts(found, album),
        _doubtful(found, album),
        _near(found, album),
        _odd(found, album),
        _section("Pictures", "Sizes in pixels and colour modes, as they are stored.", _formats(found)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Audit of {escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


class _Album:
    """Pictures by row id, as data URLs."""

    def __init__(self, source: datasets.DatasetDict):
        self._source = source
        self._places = {
            row_id: (name, row) for name, split in source.items() for row, row_id in enumerate(split["row_id"][:])
        }

    def picture(self, row_id: str) -> str:
        name, row = self._places[row_id]
        image = self._source[name][row]["image"]
        image = image if image.mode == "L" else image.convert("RGB")
        image.thumbnail((_PICTURE_PX, _PICTURE_PX))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=85)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        return f'<img src="data:image/webp;base64,{data}" alt="{escape(row_id)}" title="{escape(row_id)}">'


def _header(found: dict, title: str) -> str:
    rows = sum(found["rows"].values())
    exact = found["exact_duplicates"]
    tiles = [
        (f"{rows:,}", "rows in " + ", ".join(f"{name} ({count:,})" for name, count in found["rows"].items())),
        (f"{exact['distinct_pictures']:,}", "different pictures"),
        (
            f"{sum(sum(pair['rows'].values()) for pair in exact['across']):,}",
            "rows with an exact copy in another split",
        ),
        (f"{len(found['conflicts']):,}", "groups of equal pictures with different labels"),
        (f"{sum(len(report['skipped']) for report in found['reading']):,}", "rows that cannot be read"),
    ]
    if "near_duplicates" in found:
        tiles.insert(3, (f"{found['near_duplicates']['pairs']:,}", "pairs of near copies"))
    cells = "".join(f'<div class="tile"><b>{value}</b><span>{escape(text)}</span></div>' for value, text in tiles)
    return f'<header><p class="over">Data audit</p><h1>{escape(title)}</h1><div class="tiles">{cells}</div></header>'


def _section(heading: str, lead: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2><p class='lead'>{escape(lead)}</p>{body}</section>" if body else ""


def _findings(found: dict) -> str:
    items = "".join(
        f'<li class="{item["level"]}"><em>{_LEVEL_NAMES[item["level"]]}</em> {escape(item["text"])}</li>'
        for item in found["findings"]
    )
    return f'<ul class="findings">{items}</ul>' if items else "<p>Nothing was found that needs attention.</p>"


def _classes(found: dict) -> str:
    shares = {
        split: {name: rows / max(found["rows"][split], 1) for name, rows in classes.items()}
        for split, classes in found["classes"].items()
    }
    largest = max((share for of_split in shares.values() for share in of_split.values()), default=0) or 1
    names = list(next(iter(found["classes"].values())))
    head = "".join(f"<th>{escape(split)}</th>" for split in found["classes"])
    lines = []
    for name in names:
        cells = []
        for split, classes in found["classes"].items():
            share = shares[split][name]
            width = 100 * share / largest
            cells.append(
                f'<td><div class="bar"><i style="width:{width:.1f}%"></i></div>'
                f"<span>{classes[name]:,} <small>{share:.1%}</small></span></td>"
            )
        lines.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    return f'<table class="bars"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _samples(source: datasets.DatasetDict, album: _Album, seed: int = 0) -> str:
    name, split = next(iter(source.items()))
    labels, row_ids = np.asarray(split["label"][:]), split["row_id"][:]
    generator = np.random.default_rng(seed)
    strips = []
    for index, label in enumerate(split.features["label"].names):
        rows = generator.permutation(np.flatnonzero(labels == index))[:_SAMPLES_A_CLASS]
        if len(rows):
            pictures = "".join(album.picture(row_ids[row]) for row in rows)
            strips.append(f'<div class="strip"><h3>{escape(label)}</h3><div>{pictures}</div></div>')
    return f"<p class='lead'>All from {escape(name)}.</p>{''.join(strips)}"


def _card(pictures: str, lines: Sequence[str], flag: str = "") -> str:
    text = "".join(f"<span>{line}</span>" for line in lines)
    return f'<figure class="card {flag}"><div>{pictures}</div><figcaption>{text}</figcaption></figure>'


def _cards(cards: list[str], total: int) -> str:
    more = (
        f"<p class='lead'>{len(cards):,} of {total:,} are shown; audit.json has all.</p>" if total > len(cards) else ""
    )
    return f'{more}<div class="cards">{"".join(cards)}</div>' if cards else ""


def _rows_card(rows: list[dict], album: _Album, extra: Sequence[str] = (), are_equal: bool = False) -> str:
    """A card of rows; equal pictures are shown once."""
    pictures = "".join(album.picture(row["row_id"]) for row in rows[: 1 if are_equal else 2])
    lines = [f"<b>{escape(row['label'])}</b> {escape(row['row_id'])}" for row in rows[:6]]
    if len(rows) > 6:
        lines.append(f"and {len(rows) - 6:,} more")
    different = len({row["label"] for row in rows}) > 1
    flags = ("aside " if are_equal else "") + ("differs" if different else "")
    return _card(pictures, [*lines, *extra], flags)


def _across(found: dict, album: _Album) -> str:
    groups = found["exact_duplicates"]["across_list"]
    cards = [_rows_card(rows, album, are_equal=True) for rows in groups[:_MOST_CARDS]]
    lead = "Equal pictures on both sides of a split. Training leaves out its rows that validation has."
    return _section("Exact copies across splits", lead, _cards(cards, len(groups)))


def _conflicts(found: dict, album: _Album) -> str:
    cards = [_rows_card(rows, album, are_equal=True) for rows in found["conflicts"][:_MOST_CARDS]]
    lead = "The very same picture, labelled in different ways."
    return _section("Conflicting labels", lead, _cards(cards, len(found["conflicts"])))


def _doubtful(found: dict, album: _Album) -> str:
    doubtful = found.get("label_errors", {}).get("list", [])
    cards = []
    for row in doubtful[:_MOST_CARDS]:
        lines = [
            f"labelled <b>{escape(row['label'])}</b> {row['own_probability']:.1%}",
            f"likelier <b>{escape(row['likelier'])}</b> {row['likelier_probability']:.0%}",
            escape(row["row_id"]),
        ]
        cards.append(_card(album.picture(row["row_id"]), lines, "aside"))
    lead = (
        "Labels that a classifier which did not see them finds least likely, the most doubtful first. "
        "A doubt is not an error: look before you change a label."
    )
    return _section("Doubtful labels", lead, _cards(cards, len(doubtful)))


def _near(found: dict, album: _Album) -> str:
    pairs = found.get("near_duplicates", {}).get("list", [])
    is_across = [len({row["split"] for row in pair["rows"]}) > 1 for pair in pairs]
    ordered = [pair for pair, across in zip(pairs, is_across, strict=True) if across]
    ordered += [pair for pair, across in zip(pairs, is_across, strict=True) if not across]
    cards = []
    for pair in ordered[:_MOST_CARDS]:
        extra = [f"correlation {pair['correlation']:.2f}{', mirrored' if pair['mirrored'] else ''}"]
        cards.append(_rows_card(pair["rows"], album, extra))
    lead = "Different files of one photo: cropped, mirrored, compressed, brightened. Pairs across splits come first."
    return _section("Near copies", lead, _cards(cards, len(pairs)))


def _odd(found: dict, album: _Album) -> str:
    cards = [
        _card(album.picture(row_id), [escape(row_id), "one colour only"], "aside")
        for row_id in found["constant"][:_MOST_CARDS]
    ]
    for row in found.get("faces", {}).get("not_one", [])[:_MOST_CARDS]:
        seen = f"{row['faces']} faces seen" if row["faces"] else "no face seen"
        cards.append(_card(album.picture(row["row_id"]), [escape(row["row_id"]), seen], "aside"))
    skipped = [row for report in found["reading"] for row in report["skipped"]]
    table = "".join(
        f"<tr><td>{escape(row['row_id'])}</td><td>{escape(row['reason'])}</td></tr>" for row in skipped[:200]
    )
    unread = f"<h3>Not read</h3><table class='plain'>{table}</table>" if table else ""
    body = _cards(cards, len(cards)) + unread
    return _section("Odd pictures", "Of a single colour, not showing one face, or not readable.", body)


def _formats(found: dict) -> str:
    shorter = found["sizes"]["shorter_side_px"]
    rows = [
        ("Most common sizes", _listed(found["sizes"]["most_common"])),
        ("Shorter side", f"{shorter['smallest']} to {shorter['largest']}, median {shorter['median']}"),
        ("Modes", _listed(found["modes"])),
        ("Came as", _listed(_summed(report["formats"] for report in found["reading"]))),
    ]
    lines = "".join(f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in rows if text)
    return f"<table class='plain'>{lines}</table>"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def _summed(counts) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total
