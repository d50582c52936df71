"""Pictures of any data set by their position: a folder of files, parquet files, or a data set on the Hub.

Nothing is copied or held: a run of rows is read from where they lie, from the Hub by ranges of its parquet files.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, HfFileSystem, errors

from fer_hf.data.sources_files import picture_files
from fer_hf.data.sources_rows import file_size
from fer_hf.data.sources_tables import COLUMN_NAMES, picture_of

Picture = Path | bytes | np.ndarray
CONVERTED = "refs/convert/parquet"
"""Where the Hub keeps data sets of other formats as parquet."""
_ROWS_AT_A_TIME = 16  # photos of 5 MB each are 80 MB


@dataclass(frozen=True)
class Pictures:
    """N pictures in a fixed order.

    ``rows(start, stop)`` yields a row's id and its picture, or the reason why there is none; it reads no others than
    these. ``state_sha256`` changes with the names, sizes and number of files; ``revision`` is the commit on the Hub.
    """

    source: str
    count: int
    state_sha256: str
    revision: str | None
    rows: Callable[[int, int], Iterator[tuple[str, Picture | ValueError | OSError]]]

    def __len__(self) -> int:
        return self.count


def open_pictures(data: str, files: str = "*") -> Pictures:
    """The pictures of a folder, a parquet file, or ``user/name[@revision]`` on the Hub; ``files`` is a pattern.

    Names that the pattern is held against are relative to the source, such as ``data/train-00000-of-00002.parquet``.
    Raises ValueError in one sentence where there are none.
    """
    path = Path(data)
    if path.is_file() and path.suffix.lower() == ".parquet":
        return _tables(data, fsspec.filesystem("file"), {path.name: str(path)}, None)
    if not path.exists():
        return _on_hub(data, files)
    if not path.is_dir():
        raise ValueError(f"{data} is a {path.suffix or 'nameless'} file; give a folder, a parquet file or a Hub id")
    found = {str(file.relative_to(path)): str(file) for file in sorted(path.rglob("*.parquet")) if _is_visible(file)}
    if found:
        return _tables(data, fsspec.filesystem("file"), _chosen(found, files, data), None)
    pictures, _ = picture_files(path)
    return _files(data, _chosen({str(file.relative_to(path)): str(file) for file in pictures}, files, data))


def _is_visible(file: Path) -> bool:
    return not file.name.startswith(".")


def _chosen(found: dict[str, str], pattern: str, source: str) -> dict[str, str]:
    """The files whose relative names match, in the order of their names."""
    if not found:
        raise ValueError(f"{source} has neither parquet files nor pictures in it")
    chosen = {name: place for name, place in sorted(found.items()) if fnmatch(name, pattern)}
    if not chosen:
        raise ValueError(f"{source} has no file that matches --files {pattern!r}; it has {', '.join([*found][:5])}, …")
    return chosen


def _on_hub(data: str, pattern: str) -> Pictures:
    repo_id, _, revision = data.partition("@")
    try:
        commit, found = _hub_tables(repo_id, revision or None)
        if not found and not revision:
            with contextlib.suppress(errors.RevisionNotFoundError):
                commit, found = _hub_tables(repo_id, CONVERTED)
    except (errors.HFValidationError, errors.HTTPError, OSError) as fault:
        reason = str(fault).strip().splitlines()[0]
        raise ValueError(f"{data} is neither a file or folder nor a data set that the Hub gives: {reason}") from fault
    if not found:
        raise ValueError(f"{data} has no parquet files on the Hub; download it and give its folder")
    return _tables(data, HfFileSystem(), _chosen(found, pattern, data), commit)


def _hub_tables(repo_id: str, revision: str | None) -> tuple[str, dict[str, str]]:
    info = HfApi().dataset_info(repo_id, revision=revision)
    names = [file.rfilename for file in info.siblings if file.rfilename.endswith(".parquet")]
    return info.sha, {name: f"datasets/{repo_id}@{info.sha}/{name}" for name in names}


def _files(source: str, files: dict[str, str]) -> Pictures:
    names, places = list(files), list(files.values())
    digest = hashlib.sha256()
    for name, place in files.items():
        digest.update(f"{name} {file_size(Path(place))}\n".encode(errors="surrogateescape"))

    def rows(start: int, stop: int) -> Iterator[tuple[str, Path]]:
        for name, place in zip(names[start:stop], places[start:stop], strict=True):
            yield name.encode(errors="surrogateescape").decode(errors="replace"), Path(place)

    return Pictures(source, len(names), digest.hexdigest(), None, rows)


def _tables(source: str, system: fsspec.AbstractFileSystem, files: dict[str, str], revision: str | None) -> Pictures:
    with ThreadPoolExecutor(8) as pool:
        footers = list(pool.map(lambda place: _footer(system, place), files.values()))
    digest, bounds, stop = hashlib.sha256(), [], 0
    for (name, place), (count, size, column) in zip(files.items(), footers, strict=True):
        digest.update(f"{name} {size} {count}\n".encode())
        bounds.append((name, place, column, stop, stop + count))
        stop += count

    def rows(start: int, stop: int) -> Iterator[tuple[str, Picture | ValueError | OSError]]:
        for name, place, column, first, last in bounds:
            if first < stop and last > start:
                low, high = max(start, first) - first, min(stop, last) - first
                for position, value in _cells(system, place, column, low, high):
                    yield f"{name}#{position}", _picture_or_fault(value)

    return Pictures(source, stop, digest.hexdigest(), revision, rows)


def _footer(system: fsspec.AbstractFileSystem, place: str) -> tuple[int, int, str]:
    """Rows, bytes and the column of pictures of a parquet file. Raises ValueError where it has none."""
    with system.open(place, "rb") as file:
        try:
            table = pq.ParquetFile(file)
        except pa.ArrowInvalid as fault:
            raise ValueError(f"{place} is no readable parquet file: {fault}") from fault
        names = {name.strip().lower(): name for name in table.schema_arrow.names}
        column = next((names[name] for name in COLUMN_NAMES["image"] if name in names), None)
        if column is None:
            raise ValueError(
                f"{place} has the columns {', '.join(names)}; one of {', '.join(COLUMN_NAMES['image'])} should be there"
            )
        return table.metadata.num_rows, file.size if hasattr(file, "size") else system.size(place), column


def _cells(
    system: fsspec.AbstractFileSystem, place: str, column: str, start: int, stop: int
) -> Iterator[tuple[int, object]]:
    """Positions and values of a column's rows from ``start`` to ``stop``; only their row groups are read."""
    with system.open(place, "rb") as file:
        table = pq.ParquetFile(file)
        sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = [g for g, (size, end) in enumerate(zip(sizes, ends, strict=True)) if end > start and end - size < stop]
        position = int(ends[groups[0]] - sizes[groups[0]])
        for batch in table.iter_batches(_ROWS_AT_A_TIME, row_groups=groups, columns=[column], use_threads=False):
            low, high = max(start - position, 0), min(stop - position, len(batch))
            if low < high:
                yield from enumerate(batch.column(0).slice(low, high - low).to_pylist(), position + low)
            position += len(batch)
            if position >= stop:
                return


def _picture_or_fault(value: object) -> Picture | ValueError | OSError:
    try:
        if isinstance(value, dict) and value.get("bytes") is None:
            raise ValueError("its picture is not in the file")  # what a stranger's table names here is not opened
        return picture_of(value)
    except (ValueError, OSError) as fault:
        return fault
