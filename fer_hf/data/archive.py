"""A zip file from a stranger, unpacked safely: no path leads outside, no links, and bounded count, size and ratio."""

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_COPY_BYTES = 1 << 20
_PASSED_BY = ("__MACOSX/", ".DS_Store")


class ArchiveError(ValueError):
    """A zip file that is not unpacked; the message is one sentence that names the file or entry and the reason."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Caps on what a zip file may unpack to."""

    max_entries: int = 1_000_000
    max_bytes: int = 200 * 10**9
    max_ratio: float = 100.0  # unpacked to packed bytes of one entry; pictures have 1, a CSV of pixels about 4
    ratio_from_bytes: int = 1 << 20  # a small entry may be all zeros; only larger ones can do harm


def unpack(archive: Path, folder: Path, limits: ArchiveLimits = ArchiveLimits()) -> Path:
    """The folder, which now holds the files of a zip archive, or is not made at all.

    What macOS adds is left out. Raises ArchiveError for anything suspicious before a byte is written, and for damage
    where it is met. Bytes are counted as they come out, so a header that lies is met too.
    """
    if folder.exists():
        raise ArchiveError(f"{folder} exists; give a folder that does not, to unpack {archive.name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with zipfile.ZipFile(archive) as opened:
            _extract(opened, _checked(opened, archive.name, limits), staged, archive.name, limits)
        staged.rename(folder)
    except (zipfile.BadZipFile, NotImplementedError) as fault:
        raise ArchiveError(f"{archive.name} is no intact zip file ({fault}); pack it again") from fault
    except OSError as fault:
        raise ArchiveError(f"{archive.name} cannot be unpacked: {fault.strerror or fault}") from fault
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _checked(opened: zipfile.ZipFile, name: str, limits: ArchiveLimits) -> list[zipfile.ZipInfo]:
    """The entries to unpack. Raises ArchiveError for the first that is not a plain file in the archive's own tree."""
    entries = opened.infolist()
    if len(entries) > limits.max_entries:
        raise ArchiveError(f"{name} has {len(entries):,} entries; at most {limits.max_entries:,} are unpacked")
    if (total := sum(entry.file_size for entry in entries)) > limits.max_bytes:
        raise ArchiveError(f"{name} would unpack to {total:,} bytes; at most {limits.max_bytes:,} are unpacked")
    seen, kept = {}, []
    for entry in entries:
        path = _checked_path(entry, name)
        _check_kind(entry, name)
        ratio = entry.file_size / max(entry.compress_size, 1)
        if ratio > limits.max_ratio and entry.file_size > limits.ratio_from_bytes:
            raise ArchiveError(
                f"{name}: entry {entry.filename!r} unpacks to {ratio:,.0f} times its size; at most "
                f"{limits.max_ratio:g} times is allowed"
            )
        if entry.is_dir() or entry.filename.startswith(_PASSED_BY) or path.name == ".DS_Store":
            continue
        key = str(path).casefold()
        if key in seen:
            raise ArchiveError(f"{name} has two entries for {entry.filename!r} ({seen[key]!r} is the other)")
        seen[key] = entry.filename
        kept.append(entry)
    return kept


def _checked_path(entry: zipfile.ZipInfo, name: str) -> PurePosixPath:
    # zipfile turns backslashes into slashes on Windows only; here they would stay part of a name.
    written = entry.orig_filename
    path = PurePosixPath(entry.filename)
    is_outside = path.is_absolute() or ".." in path.parts or ":" in path.parts[0] if path.parts else True
    if is_outside or "\\" in written or "\0" in written:
        raise ArchiveError(f"{name}: entry {written!r} leads outside of the archive or is no portable path")
    return path


def _check_kind(entry: zipfile.ZipInfo, name: str) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "a device or pipe"
        raise ArchiveError(f"{name}: entry {entry.filename!r} is {what}; pack plain files")
    if entry.flag_bits & 0x1:
        raise ArchiveError(f"{name}: entry {entry.filename!r} is encrypted; pack it without a password")


def _extract(
    opened: zipfile.ZipFile, entries: list[zipfile.ZipInfo], folder: Path, name: str, limits: ArchiveLimits
) -> None:
    left = limits.max_bytes
    for entry in entries:
        target = folder / entry.filename
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(entry) as source, target.open("xb") as file:
                while chunk := source.read(_COPY_BYTES):
                    left -= len(chunk)
                    if left < 0:
                        raise ArchiveError(f"{name} unpacks to more than {limits.max_bytes:,} bytes")
                    file.write(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError) as fault:
            raise ArchiveError(f"{name}: entry {entry.filename!r} is damaged ({fault}); pack it again") from fault
        except (FileExistsError, NotADirectoryError) as fault:
            raise ArchiveError(f"{name}: entry {entry.filename!r} is both a file and a folder") from fault
        os.utime(target, (0, 0))  # so that a second unpacking is the same source, whose rows need not be read again
