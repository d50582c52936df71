"""Readers of picture files: folders named after classes, under any split, and lists that name files."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fer_hf.data.sources_csv import csv_header, csv_rows
from fer_hf.data.sources_rows import (
    Listing,
    Row,
    SkippedRow,
    file_state,
    files_under,
    known_label,
    label_text,
    named_split,
    resolve_labels,
    split_name,
    split_of_path,
    split_of_place,
)

if TYPE_CHECKING:
    from fer_hf.data.sources import SourceOptions

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .tif .tiff .bmp .heic .heif .hif .avif".split()  # noqa: SIM905
)
RAF_DB_LIST = "list_patition_label.txt"
FILE_COLUMNS = ("path", "file", "file_name", "filename", "filepath", "image", "image_path", "img", "pth")
FILE_COLUMNS += ("image name", "subdirectory_filepath")
LABEL_COLUMNS = ("label", "labels", "emotion", "expression", "class")
SPLIT_COLUMNS = ("split", "usage", "set", "partition")
SUBJECT_COLUMNS = ("subject", "subject_id", "person", "identity")


def picture_files(root: Path) -> tuple[list[Path], Counter]:
    """Picture files under ``root`` in a stable order, by their suffix, and how many files have which other suffix."""
    pictures, others = [], Counter()
    for file in files_under(root):
        suffix = file.suffix.lower()
        if suffix in PICTURE_SUFFIXES:
            pictures.append(file)
        else:
            others[suffix or "(none)"] += 1
    return pictures, others


def subject_of(file_name: str, pattern: str | None) -> str | None:
    """The first group of ``pattern`` in a file's name, such as S010 in CK+48's ``S010_004_00000017.png``, or None."""
    found = re.search(pattern, file_name) if pattern else None
    return found.group(1) if found else None


def class_folder_listing(root: Path, pictures: list[Path], options: "SourceOptions") -> Listing:
    """Rows of pictures in class folders: the class is the nearest folder above a picture that names one.

    A folder named after a split (``train``, ``val``, ``PublicTest``) anywhere on the way gives the split; other folders
    are passed by. Raises ValueError for pictures that no known class folder holds, naming the folders.
    """
    if options.votes:
        raise ValueError(f"votes are matched by row order, which {root} has none of: give fer2013.csv or its parquet")
    places = _places(root, pictures, options)
    if any(label == "" for label, _ in places.values()):
        stray = next(file for file in pictures if places[file.parent][0] == "")
        raise ValueError(
            f"{stray} is in no folder named after an expression, such as {root}/happy; move it, or leave it out"
        )
    names, notes = resolve_labels((label for label, _ in places.values()), options.remap, options.numbering)

    def rows() -> Iterator[Row]:
        for file in pictures:
            label, split = places[file.parent]
            subject = subject_of(file.name, options.subject_pattern)
            yield Row(readable(file.relative_to(root)), file, names[label], split, subject)

    return Listing(
        "class folders",
        rows,
        [_reading_from(root), *(file_state(file) for file in pictures)],
        len(pictures),
        has_subjects=any(subject_of(file.name, options.subject_pattern) for file in pictures),
        notes=notes,
    )


def has_class_folders(root: Path, pictures: list[Path], options: "SourceOptions") -> bool:
    """Whether any picture is in a folder named after a class."""
    return any(_is_known(label, options) or label.isdecimal() for label, _ in _places(root, pictures, options).values())


def _places(root: Path, pictures: list[Path], options: "SourceOptions") -> dict[Path, tuple[str, str | None]]:
    """Class as written ("" where no folder can be one) and split, by the folder that pictures are in."""
    return {folder: _place(folder.relative_to(root).parts, options) for folder in {file.parent for file in pictures}}


def _place(parts: tuple[str, ...], options: "SourceOptions") -> tuple[str, str | None]:
    split = next((name for name in map(split_of_place, parts) if name), None)
    candidates = [part for part in reversed(parts) if not split_of_place(part)]
    known = [part for part in candidates if _is_known(part, options)]
    if len({known_label(part, options.remap) for part in known}) > 1:
        raise ValueError(
            f"{'/'.join(parts)} lies in folders of several expressions, {' and '.join(reversed(known))}: rename those "
            "that mean something else, such as a person"
        )
    for classes in (known, filter(str.isdecimal, candidates)):  # a number may also be a subject's
        for part in classes:
            return part, split
    return (candidates[0] if candidates else ""), split


def _is_known(part: str, options: "SourceOptions") -> bool:
    try:
        known_label(part, options.remap)
    except ValueError:
        return False
    return True


def is_file_list(path: Path) -> bool:
    """Whether the file lists pictures with labels: RAF-DB's list, or a CSV with a column of files and one of labels."""
    if path.name == RAF_DB_LIST:
        return True
    header = csv_header(path) if path.suffix.lower() == ".csv" else []
    return _column(header, FILE_COLUMNS) is not None and _column(header, LABEL_COLUMNS) is not None


def file_list_listing(lists: list[Path], root: Path, options: "SourceOptions") -> Listing:
    """Rows of one or more lists of pictures that lie anywhere under ``root``.

    A row's split is what its column says, else the start of the picture's name (``train_00001.jpg``), else the list's,
    else that of the nearest folder above the picture that names one.
    Where a list names ``x.jpg`` and an aligned ``x_aligned.jpg`` is there, as in RAF-DB, the aligned one is taken.
    """
    if options.votes:
        raise ValueError(f"votes are matched by row order, which {root} has none of: give fer2013.csv or its parquet")
    pictures, _ = picture_files(root)
    by_name: dict[str, list[Path]] = {}
    for file in pictures:
        by_name.setdefault(file.name, []).append(file)
    entries = [(path, number, entry) for path in lists for number, entry in _entries(path)]
    listed: dict[str, set[Path]] = {}
    for *_, entry in entries:
        listed.setdefault(_path(entry["file"]).name, set()).add(_path(entry["file"]))
    numbering = "raf-db" if options.numbering == "auto" and lists[0].name == RAF_DB_LIST else options.numbering
    written = (entry["label"] for _, _, entry in entries if entry["label"])
    names, notes = resolve_labels(written, options.remap, numbering)

    def rows() -> Iterator[Row | SkippedRow]:
        for path, number, entry in entries:
            try:
                file, split = _find(entry["file"], by_name, listed), named_split(entry["split"] or "", "the split")
                if not entry["label"]:
                    raise ValueError("it has no label")
            except ValueError as fault:
                yield SkippedRow(f"{path.name}, row {number}", f"{entry['file'][:80]!r}: {fault}")
                continue
            place = file.relative_to(root)
            split = split or split_name(place.name) or split_of_place(path.name) or split_of_path(place.parent)
            subject = entry["subject"] or subject_of(file.name, options.subject_pattern)
            yield Row(readable(place), file, names[entry["label"]], split, subject)

    has_subjects = any(
        entry["subject"] or subject_of(_path(entry["file"]).name, options.subject_pattern) for *_, entry in entries
    )
    state = [_reading_from(root), *(file_state(path) for path in (*lists, *pictures))]
    return Listing("list of files", rows, state, len(entries), has_subjects=has_subjects, notes=notes)


def _find(named: str, by_name: dict[str, list[Path]], listed: dict[str, set[Path]]) -> Path:
    """The file that a list's entry means: the aligned one where there is one, in the folders that it names.

    ``listed`` holds by name all paths that the lists give. A path may begin above the folder that was given, or leave
    folders out; a picture of another folder is taken only where no other entry has its name. Raises ValueError where
    there is none, or more than one.
    """
    path = _path(named)
    found = by_name.get(f"{path.stem}_aligned{path.suffix}") or by_name.get(path.name, [])
    shared = {file: _shared_folders(file, path) for file in found}
    most = max(shared.values(), default=0)
    if most == 0 and len(path.parts) > 1 and len(listed[path.name]) > 1:
        raise ValueError("no such picture in this folder, and the list names others like it")
    found = [file for file in found if shared[file] == most]
    if len(found) != 1:
        raise ValueError(f"{len(found)} pictures of this name under the folder" if found else "no such picture")
    return found[0]


def _shared_folders(file: Path, path: Path) -> int:
    """How many folders both paths end in, counted from the innermost."""
    pairs = zip(reversed(file.parts[:-1]), reversed(path.parts[:-1]), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _path(named: str) -> Path:
    """What a list written on any system calls a file."""
    return Path(named.replace("\\", "/"))


def _reading_from(root: Path) -> str:
    """A line for a listing's state: row ids, classes and splits follow from the paths below this folder."""
    return f"from {root.absolute()}"


def _entries(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Row number, and file, label, split and subject as they are written."""
    if path.suffix.lower() != ".csv":
        for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
            if line.strip():
                file, _, label = line.strip().rpartition(" ")
                yield number, {"file": file.strip(), "label": label, "split": None, "subject": None}
        return
    header = csv_header(path)
    columns = {"file": FILE_COLUMNS, "label": LABEL_COLUMNS, "split": SPLIT_COLUMNS, "subject": SUBJECT_COLUMNS}
    columns = {key: _column(header, names) for key, names in columns.items()}
    for number, values in csv_rows(path):
        entry = {key: values[column].strip() if column else None for key, column in columns.items()}
        yield number, entry | {"label": label_text(entry["label"])}


def _column(header: list[str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in header), None)


def readable(path: Path) -> str:
    """The path with forward slashes, and with marks in place of bytes that are no text."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")
