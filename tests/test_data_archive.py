"""Zip files are unpacked only where they are plain, small enough and stay in their folder."""

import stat
import struct
import zipfile

import pytest

from fer_hf.data.archive import ArchiveError, ArchiveLimits, unpack


def pack(path, entries: dict[str, bytes], compression=zipfile.ZIP_DEFLATED, attributes: int | None = None):
    """A zip file with these entries at ``path``."""
    with zipfile.ZipFile(path, "w", compression) as opened:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            if attributes is not None:
                info.external_attr = attributes << 16
            opened.writestr(info, content)
    return path


def fault(tmp_path, archive, **limits) -> str:
    """The sentence with which an archive is refused, after which nothing of it is there."""
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, tmp_path / "out", ArchiveLimits(**limits))
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_come_out_as_they_went_in_and_what_macos_adds_stays_behind(tmp_path):
    entries = {"faces/happy/a.jpg": b"a" * 5000, "faces/sad/ü.jpg": b"b", "faces/empty/": b""}
    extras = {"__MACOSX/faces/happy/._a.jpg": b"x", "faces/.DS_Store": b"x"}
    folder = unpack(pack(tmp_path / "faces.zip", entries | extras), tmp_path / "out")
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {"faces/happy/a.jpg": b"a" * 5000, "faces/sad/ü.jpg": b"b"}
    assert all(p.stat().st_mtime == 0 for p in folder.rglob("*") if p.is_file())
    with pytest.raises(ArchiveError, match="exists"):
        unpack(tmp_path / "faces.zip", folder)


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "happy/../../a.jpg", "..\\a.jpg", "C:/a.jpg", "happy\\a.jpg"])
def test_a_path_that_leads_outside_is_refused(tmp_path, name):
    assert "leads outside" in fault(tmp_path, pack(tmp_path / "a.zip", {"happy/b.jpg": b"b", name: b"a"}))


def test_links_devices_and_passwords_are_refused(tmp_path):
    link = pack(tmp_path / "a.zip", {"happy/a.jpg": b"/etc/passwd"}, attributes=stat.S_IFLNK | 0o777)
    assert "'happy/a.jpg' is a link" in fault(tmp_path, link)
    pipe = pack(tmp_path / "a.zip", {"happy/a.jpg": b""}, attributes=stat.S_IFIFO | 0o644)
    assert "a device or pipe" in fault(tmp_path, pipe)
    locked = pack(tmp_path / "a.zip", {"happy/a.jpg": b"a"}, zipfile.ZIP_STORED)
    data = bytearray(locked.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    locked.write_bytes(data)
    assert "is encrypted" in fault(tmp_path, locked)


def test_caps_on_count_size_and_ratio(tmp_path):
    archive = pack(tmp_path / "a.zip", {f"happy/{i}.jpg": b"a" * 1000 for i in range(11)})
    assert fault(tmp_path, archive, max_entries=10) == "a.zip has 11 entries; at most 10 are unpacked"
    assert fault(tmp_path, archive, max_bytes=10_999) == (
        "a.zip would unpack to 11,000 bytes; at most 10,999 are unpacked"
    )
    bomb = pack(tmp_path / "a.zip", {"happy/a.png": bytes(5 << 20)})
    assert "unpacks to 1,0" in fault(tmp_path, bomb)
    assert "at most 100 times is allowed" in fault(tmp_path, bomb)


def test_a_size_that_lies_is_met_when_the_bytes_come_out(tmp_path):
    archive = pack(tmp_path / "a.zip", {"happy/a.png": bytes(range(256)) * 4096})
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.index(signature) + offset, 10)
    archive.write_bytes(data)
    assert "'happy/a.png' is damaged" in fault(tmp_path, archive)


def test_damage_and_doubles_are_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no zip")
    assert fault(tmp_path, tmp_path / "a.zip").startswith("a.zip is no intact zip file")
    whole = pack(tmp_path / "a.zip", {"happy/a.jpg": bytes(range(256)) * 40}, zipfile.ZIP_STORED).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:1000] + b"!" + whole[1001:])
    assert "entry 'happy/a.jpg' is damaged" in fault(tmp_path, tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(whole[:-30])
    assert fault(tmp_path, tmp_path / "a.zip").startswith("a.zip is no intact zip file")
    double = pack(tmp_path / "a.zip", {"happy/a.jpg": b"a", "HAPPY/A.jpg": b"b"})
    assert "two entries for 'HAPPY/A.jpg'" in fault(tmp_path, double)
    both = pack(tmp_path / "a.zip", {"happy": b"a", "happy/a.jpg": b"b"})
    assert "both a file and a folder" in fault(tmp_path, both)
