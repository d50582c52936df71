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
_DAMAGED = (zlib.error, lzma.LZMAError)
MAX_UNPACKED_BYTES = 200 * MEGABYTE


def count_files(uploads: Sequence[Upload]) -> int:
    """How many files ``unpack`` gives. Raises Refused for a broken zip, or for more than ``MAX_FILES``."""
    count = sum(len(_members(upload)) if _is_zip(upload) else 1 for upload in uploads)
    if count > MAX_FILES:
        raise Refused(f"These are {count} files; at most {MAX_FILES} are taken at a time.")
    return count


def unpack(uploads: Sequence[Upload], with_folders: bool = False) -> Iterator[Upload]:
    """The uploads one by one, zips replaced by what is in them; names of members keep their folder on request.

    Raises Refused where a zip unpacks to more than ``MAX_UNPACKED_BYTES``, is broken or needs a password.
    """
    unpacked = 0
    for upload in uploads:
        if not _is_zip(upload):
            yield upload
            continue
        with zipfile.ZipFile(io.BytesIO(upload.data)) as archive:
            for member in _members(upload):
                data = _read(archive, member, upload.name)
                unpacked += len(data)
                if unpacked > MAX_UNPACKED_BYTES:
                    limit = MAX_UNPACKED_BYTES // MEGABYTE
                    raise Refused(f"{upload.name} unpacks to more than {limit} MB; send it in parts.")
                yield Upload(member.filename if with_folders else safe_name(member.filename), data)


def _is_zip(upload: Upload) -> bool:
    return upload.data[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def _members(upload: Upload) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(io.BytesIO(upload.data)) as archive:
            return [member for member in archive.infolist() if not member.is_dir() and not _is_hidden(member)]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Refused(f"{upload.name} is not a zip that can be read; pack it again.") from error


def _is_hidden(member: zipfile.ZipInfo) -> bool:
    """What systems add to archives on their own: __MACOSX, .DS_Store, Thumbs.db."""
    parts = PurePosixPath(member.filename).parts
    return any(part.startswith((".", "__MACOSX")) or part == "Thumbs.db" for part in parts)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    """The member's bytes, at most one more than a photo may have, whatever the archive says about its size."""
    try:
        with archive.open(member) as file:
            return file.read(DEFAULT_LIMITS.max_bytes + 1)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError, *_DAMAGED) as error:
        raise Refused(f"{name} is damaged or needs a password; pack it again without one.") from error
