"""A contact sheet of contributions: each picture over its id and labels."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from training.review_folder import Entry

_TILE_PX, _TEXT_PX, _COLUMNS = 150, 54, 6


def contact_sheet(entries: Sequence[tuple[Entry, str]]) -> Image.Image:
    """A page of entries with their labels, six a row: id, label, and what the model had said where it differs."""
    rows = -(-len(entries) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _TILE_PX, rows * (_TILE_PX + _TEXT_PX)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, (entry, label) in enumerate(entries):
        left, top = index % _COLUMNS * _TILE_PX, index // _COLUMNS * (_TILE_PX + _TEXT_PX)
        tile = ImageOps.contain(entry.picture(), (_TILE_PX - 6, _TILE_PX - 6))
        sheet.paste(tile, (left + (_TILE_PX - tile.width) // 2, top + (_TILE_PX - tile.height) // 2))
        model = f"model: {entry.predicted}" if entry.predicted not in (None, label) else ""
        for line, text in enumerate((entry.id, label, model)):
            draw.text((left + 4, top + _TILE_PX + 16 * line), text, "black", font)
    return sheet
