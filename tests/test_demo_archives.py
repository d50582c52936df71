"""Zips of photos: what is taken, what is refused, and what one bad file costs."""

import base64
import io
import zipfile

import pytest

from fer_hf.contributions import ContributionStore
from fer_hf.demo import archives
from fer_hf.demo.archives import count_files, unpack
from fer_hf.demo.batch import batch_records, show_batch
from fer_hf.demo.contribute import audit_zip
from fer_hf.demo.jobs import Progress
from fer_hf.demo.limits import Refused
from fer_hf.demo.uploads import Upload
from fer_hf.labels import FER7
from tests.demo_fake import fake_shelf
from tests.test_demo_jobs import encode, pack


@pytest.fixture
def shelf():
    return fake_shelf()


def flip(upload, inside):
    """The zip with one byte of a member's data changed; ``inside`` are some of its packed bytes."""
    data = bytearray(upload.data)
    at = upload.data.index(inside) + len(inside) // 2
    data[at] ^= 0xFF
    return Upload(upload.name, bytes(data))


def lock(upload, *names):
    """The zip with members marked as encrypted, in its directory and before their data."""
    data = bytearray(upload.data)
    with zipfile.ZipFile(io.BytesIO(upload.data)) as archive:
        for name in names:
            data[archive.getinfo(name).header_offset + 6] |= 1
            data[upload.data.rindex(name.encode()) - 46 + 8] |= 1
    return Upload(upload.name, bytes(data))


def test_zips_are_unpacked_with_their_folders_only_on_request():
    upload = pack({"happy/a.png": b"1", "__MACOSX/._a.png": b"junk", ".DS_Store": b"junk", "b.png": b"2"})
    assert count_files([Upload("c.png", b"3"), upload]) == 3
    names = [one.name for one in unpack([Upload("c.png", b"3"), upload])]
    assert names == ["c.png", "a.png", "b.png"]
    assert [one.name for one in unpack([upload], with_folders=True)] == ["happy/a.png", "b.png"]


def test_backslashes_part_folders_as_well():
    upload = pack({r"happy\a.png": b"1", r"__MACOSX\happy\._a.png": b"junk", "sad\\": b"", r"sad\c.png": b"2"})
    assert count_files([upload]) == 2
    assert [one.name for one in unpack([upload], with_folders=True)] == ["happy/a.png", "sad/c.png"]
    assert [one.name for one in unpack([upload])] == ["a.png", "c.png"]


def test_zips_that_are_broken_bombs_or_too_many_are_refused(monkeypatch):
    whole = pack({"a.png": b"x" * 5000}).data
    with pytest.raises(Refused, match="not a zip"):
        count_files([Upload("a.zip", whole[:-30])])
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 9_000)
    with pytest.raises(Refused, match="unpacks to more"):
        count_files([pack({"a.png": b"0" * 5000, "b.png": b"0" * 5000})])
    monkeypatch.setattr(archives, "MAX_FILES", 1)
    with pytest.raises(Refused, match="at most 1"):
        count_files([pack({"a.png": b"1", "b.png": b"2"})])


def test_a_bad_file_costs_one_row_of_a_batch(shelf):
    uploads = [
        Upload("good.png", encode((640, 480))),
        Upload("bad.png", b"nope"),
        Upload("none.png", encode((100, 90))),
    ]
    records = batch_records(shelf.first, uploads)
    assert [len(record["faces"]) for record in records] == [2, 0, 0]
    assert ["error" in record for record in records] == [False, True, False]
    shown = show_batch(shelf.first, uploads, Progress())
    assert shown["html"].count("<tr>") == 1 + 4
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(shown["zip"]))) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 4


def stored(files):
    """A zip that packs nothing, so that the bytes of its members can be found in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return Upload("photos.zip", buffer.getvalue())


def test_a_damaged_photo_in_a_zip_costs_one_row(shelf):
    photos = {f"{number}.png": encode((640, 480), (number, 90, 200)) for number in range(3)}
    damaged = flip(stored(photos), photos["1.png"])
    assert count_files([damaged]) == 3
    records = batch_records(shelf.first, [damaged])
    assert [record["file"] for record in records] == ["0.png", "1.png", "2.png"]
    assert [len(record["faces"]) for record in records] == [2, 0, 2]
    assert "damaged inside its zip" in records[1]["error"]
    shown = show_batch(shelf.first, [damaged], Progress())
    assert "3 photos, 4 faces, 1 file could not be read." in shown["html"]
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(shown["zip"]))) as archive:
        assert archive.namelist() == ["001-0.jpg", "003-2.jpg", "results.json", "results.csv"]


def test_a_damaged_photo_in_a_contributed_zip_is_one_reason(shelf, tmp_path):
    photos = {f"happy/{number}.png": encode((512, 384), (number, 90, 200)) for number in range(2)}
    store = ContributionStore(tmp_path / "store", FER7)
    audit = audit_zip(shelf.first, store, [flip(stored(photos), photos["happy/0.png"])], Progress())
    assert [offer.label for offer in audit.offers] == ["happy"]
    ((name, reason),) = audit.rejected
    assert name == "happy/0.png"
    assert "damaged" in reason


def test_a_zip_is_refused_for_its_password_only_where_nothing_is_open():
    whole = pack({"a.png": b"x" * 50, "b.png": b"y" * 50})
    with pytest.raises(Refused, match="needs a password"):
        count_files([lock(whole, "a.png", "b.png")])
    half = lock(whole, "b.png")
    assert count_files([half]) == 2
    one, two = unpack([half])
    assert (one.data, one.fault) == (b"x" * 50, "")
    assert (two.data, two.name) == (b"", "b.png")
    assert "needs a password" in two.fault


def test_what_a_zip_unpacks_to_is_known_before_its_first_photo_is_looked_at(shelf, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 9_000)
    looked = []
    monkeypatch.setattr(shelf.first.recognizer, "recognize", looked.append)
    with pytest.raises(Refused, match="unpacks to more than 0 MB"):
        show_batch(shelf.first, [pack({"a.png": b"0" * 5000, "b.png": b"0" * 5000})], Progress())
    assert looked == []
