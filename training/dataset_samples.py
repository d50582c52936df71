"""A page of pictures from every class, for people who want to see what a data set is."""

import datasets
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

_TILE_PX, _GAP_PX, _NAME_PX = 96, 4, 110


def sample_sheet(split: datasets.Dataset, columns: int = 8, seed: int = 0) -> Image.Image:
    """Up to ``columns`` random pictures of each class that a split has, one class a row beside its name."""
    labels, names = np.asarray(split["label"]), split.features["label"].names
    present = [index for index in range(len(names)) if (labels == index).any()]
    cell = _TILE_PX + _GAP_PX
    sheet = Image.new("RGB", (_NAME_PX + columns * cell, max(len(present), 1) * cell), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    generator = np.random.default_rng(seed)
    for row, label in enumerate(present):
        draw.text((6, row * cell + _TILE_PX // 2), names[label], "black", font, anchor="lm")
        chosen = generator.permutation(np.flatnonzero(labels == label))[:columns]
        for column, index in enumerate(chosen):
            tile = ImageOps.contain(split[int(index)]["image"].convert("RGB"), (_TILE_PX, _TILE_PX))
            left = _NAME_PX + column * cell + (_TILE_PX - tile.width) // 2
            sheet.paste(tile, (left, row * cell + (_TILE_PX - tile.height) // 2))
    return sheet
