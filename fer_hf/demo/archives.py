"""Files and zips as one stream of uploads, unpacked one at a time and never beyond the limits."""

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from fer_hf.demo.limits import MEGABYTE, Refused
from fer_hf.demo.uploads import Upload, safe_name
from fer_hf.image_io import DEFAULT_LIMITS

MAX_FILES = 200
MAX_UNPACKED_BYTES = 200 * MEGABYTE
_ENCRYPTED = 0x1
_DAMAGE = (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
"""What ``zipfile`` raises for a member that it cannot give: among the RuntimeErrors are unknown compressions."""


def count_files(uploads: Sequence[Upload]) -> int:
    """How many files ``unpack`` gives.

    Raises Refused for a broken zip or one that needs a password, and where the zips hold more than ``MAX_FILES`` or
    unpack to more than ``MAX_UNPACKED_BYTES``.
    """
    packed = [member for upload in uploads if _is_zip(upload) for member in _members(upload)]
    count = len(packed) + sum(not _is_zip(upload) for upload in uploads)
    if not count:
        raise Refused("There is no file in this zip.")
    if count > MAX_FILES:
        raise Refused(f"These are {count} files; at most {MAX_FILES} are taken at a time.")
    if sum(min(member.file_size, DEFAULT_LIMITS.max_bytes + 1) for member in packed) > MAX_UNPACKED_BYTES:
        raise Refused(f"This unpacks to more than {MAX_UNPACKED_BYTES // MEGABYTE} MB; send it in parts.")
    return count


def unpack(uploads: Sequence[Upload], with_folders: bool = False) -> Iterator[Upload]:
    """The uploads one by one, zips replaced by what is in them; names of members keep their folder on request.

    A member that cannot be read comes with its fault in place of its bytes. Call ``count_files`` first, which holds
    the limits.
    """
    for upload in uploads:
        if not _is_zip(upload):
            yield upload
            continue
        with zipfile.ZipFile(io.BytesIO(upload.data)) as archive:
            for member in _members(upload):
                name = str(_path(member)) if with_folders else safe_name(member.filename)
                yield _take_out(archive, member, name)


def _is_zip(upload: Upload) -> bool:
    return upload.data[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def _members(upload: Upload) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(io.BytesIO(upload.data)) as archive:
            members = [
                member
                for member in archive.infolist()
                if not member.filename.endswith(("/", "\\")) and not _is_hidden(member)
            ]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Refused(f"{upload.name} is not a zip that can be read; pack it again.") from error
    if members and all(member.flag_bits & _ENCRYPTED for member in members):
        raise Refused(f"{upload.name} needs a password; pack it again without one.")
    return members


def _is_hidden(member: zipfile.ZipInfo) -> bool:
    """What systems add to archives on their own: __MACOSX, .DS_Store, Thumbs.db."""
    return any(part.startswith((".", "__MACOSX")) or part == "Thumbs.db" for part in _path(member).parts)


def _path(member: zipfile.ZipInfo) -> PurePosixPath:
    """Where a member lies; some of Windows' own tools put backslashes between folders."""
    return PurePosixPath(member.filename.replace("\\", "/"))


def _take_out(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Upload:
    """The member with at most one byte more than a photo may have, and never more than the zip says; or its fault."""
    try:
        with archive.open(member) as file:
            return Upload(name, file.read(DEFAULT_LIMITS.max_bytes + 1))
    except _DAMAGE:
        if member.flag_bits & _ENCRYPTED:
            return Upload(name, b"", fault="It needs a password; pack it again without one.")
        return Upload(name, b"", fault="It is damaged inside its zip, or packed in an uncommon way; pack it again.")
