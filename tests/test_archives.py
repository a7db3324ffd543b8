"""Archives as they should be, cut, damaged, and made to do harm."""

import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from co3d.data import archives
from co3d.data.archives import Limits, extract

FILES = {
    "videos/a.mp4": bytes(range(256)) * 40,
    "videos/b.mp4": b"b" * 5000,
    "videos/deep/empty.txt": b"",
    "notes.txt": random.Random(0).randbytes(3000),
}


def tar(members=FILES, mode="w:gz", format=tarfile.PAX_FORMAT):
    """An archive of names and contents, or of headers as they are."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=format) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            header = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            header.size = header.size or len(data)
            archive.addfile(header, io.BytesIO(data))
    return file.getvalue()


def zipped(members=FILES, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return file.getvalue()


MAKERS = {
    "tar.gz": tar,
    "tgz, gnu": lambda members=FILES: tar(members, format=tarfile.GNU_FORMAT),
    "tar": lambda members=FILES: tar(members, "w"),
    "tar, ustar": lambda members=FILES: tar(members, "w", tarfile.USTAR_FORMAT),
    "zip": zipped,
    "zip, stored": lambda members=FILES: zipped(members, zipfile.ZIP_STORED),
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Extracts bytes as a file called `made`."""
    monkeypatch.setattr(archives, "BLOCK", 4096)
    monkeypatch.setattr(archives, "SPARE", 0)

    def run(data, **options):
        (tmp_path / "made").write_bytes(data)
        return extract(tmp_path / "made", tmp_path / "out", **options)

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def found(folder):
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("kind", MAKERS)
def test_whole_archives_of_every_kind(run, out, kind):
    names = []
    done = run(MAKERS[kind](), each=names.append)
    assert found(out) == FILES and names == list(FILES)
    assert (done.written, done.there, done.others) == (4, 0, 0)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    names.clear()
    done = run(MAKERS[kind](), each=names.append)
    assert (done.written, done.there) == (0, 4) and names == list(FILES)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")} == times


def test_what_is_there_with_another_size_is_kept_and_told(run, out):
    out.mkdir()
    (out / "notes.txt").write_bytes(b"mine")
    (out / "videos").symlink_to(out.parent)  # the user's own links are followed
    done = run(tar())
    assert (done.written, done.others, done.examples) == (3, 1, ["notes.txt"])
    assert (out / "notes.txt").read_bytes() == b"mine"
    assert (out.parent / "a.mp4").read_bytes() == FILES["videos/a.mp4"]


def test_members_go_where_they_are_placed_or_nowhere(run, out):
    done = run(tar(), place=lambda parts: parts[-1:] if parts[-1].endswith("mp4") else None)
    assert done.written == 2 and set(found(out)) == {"a.mp4", "b.mp4"}
    with pytest.raises(ValueError, match="names 'x' twice: refused"):
        run(tar({"a/x": b"1", "b/x": b"22"}), place=lambda parts: parts[-1:])


def test_folders_dots_and_slashes_are_fine(run, out):
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    run(tar([(folder, b""), ("./a//b/./c", b"1"), ("-d", b"2"), ("é/ü", b"3")]))
    assert found(out) == {"a/b/c": b"1", "-d": b"2", "é/ü": b"3"}
    run(zipped([("e/", b""), ("e/f", b"4")]))
    assert found(out)["e/f"] == b"4"


NAMES = {
    "absolute": "/etc/passwd",
    "above": "../x",
    "above, within": "a/../../x",
    "above, at the end": "a/..",
    "backslash": "..\\x",
    "drive": "C:x",
    "stream": "a.mp4:x",
    "newline": "a\nb",
    "escape": "a\x1b[2Jb",
    "part": f"a/{archives.PART}",
    "long component": "a" * 250,
    "long": "/".join(["a" * 100] * 12),
    "deep": "/".join("a" * 20),
}


@pytest.mark.parametrize("kind", ["tar.gz", "tgz, gnu", "tar", "zip"])
@pytest.mark.parametrize("case", NAMES)
def test_names_that_lead_elsewhere_are_refused(run, out, tmp_path, kind, case):
    with pytest.raises(ValueError, match=r"^made has a member .*: refused$") as told:
        run(MAKERS[kind]([("fine", b"1"), (NAMES[case], b"evil"), ("after", b"2")]))
    assert len(str(told.value)) < 200 and str(told.value).isprintable()
    assert found(out) == ({"fine": b"1"} if kind == "tar" else {})
    assert {path.name for path in tmp_path.iterdir()} <= {"made", "out"}


def test_a_name_that_is_not_utf_8_or_holds_a_zero_is_refused(run, out):
    with pytest.raises(ValueError, match="not UTF-8: refused"):
        run(tar({"a\udcff": b"1"}, format=tarfile.GNU_FORMAT))
    data = zipped({"a_b/../c": b"1"}).replace(b"a_b/../c", b"a\0b/../c")
    with pytest.raises(ValueError, match="could lead elsewhere: refused"):
        run(data)
    assert found(out) == {}


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b\\..", "C:", "~", "\0"]), max_size=6))
def test_a_name_stays_inside_or_is_refused(names):
    try:
        parts = archives._parts("/".join(names))
    except archives.RefusedError:
        return
    assert not {"..", ".", "", "\0", "C:", "b\\.."} & set(parts)
    assert Path("/x", *parts).is_relative_to("/x")


KINDS = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
    "unknown": b"Z",
}


def odd(kind):
    header = tarfile.TarInfo("odd")
    header.type, header.linkname = kind, "../../etc/passwd"
    return header


@pytest.mark.parametrize("packed", ["w", "w:gz"])
@pytest.mark.parametrize("kind", [case for case in KINDS if case != "unknown"])
def test_links_devices_and_holes_are_refused(run, out, kind, packed):
    members = [("fine", b"1"), (odd(KINDS[kind]), b""), ("odd/x", b"2")]
    with pytest.raises(ValueError, match="neither file nor folder: refused"):
        run(tar(members, packed))
    assert found(out) == ({"fine": b"1"} if packed == "w" else {})


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused_before_anything_is_written(run, out, kind):
    link = zipfile.ZipInfo("link")
    link.external_attr = (kind | 0o777) << 16
    with pytest.raises(ValueError, match="'link', which is neither file nor folder: refused"):
        run(zipped([("fine", b"1"), (link, b"../../etc/passwd")]))
    assert found(out) == {}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
def test_nothing_is_written_twice(run, out, kind):
    with pytest.raises(ValueError, match="names 'a/x' twice: refused"):
        run(MAKERS[kind]([("a/x", b"1"), ("./a/x", b"evil")]))
    assert found(out).get("a/x", b"1") == b"1"
    for members in ([("b", b"1"), ("b/x", b"2")], [("c/x", b"1"), ("c", b"2")]):
        with pytest.raises(ValueError, match="names a (file|folder) '[bc]', but that is a f"):
            run(MAKERS[kind](members))


def test_bombs_are_refused(run, out):
    zeros = bytes(10**7)
    for data in (tar({"a": zeros}), zipped({"a": zeros}), gzip.compress(zeros)):
        with pytest.raises(ValueError, match="unpacks to more than|damaged"):
            run(data)
    with pytest.raises(ValueError, match=r"unpacks to more than [0-9,]+ bytes: refused"):
        run(tar({"a": b"1"}) + gzip.compress(zeros))  # behind the end
    with pytest.raises(ValueError, match="has more than 50 members: refused"):
        run(tar({f"{n}": b"" for n in range(51)}), limits=Limits(members=50))
    with pytest.raises(ValueError, match="has more than 50 members: refused"):
        run(zipped({f"{n}/": b"" for n in range(51)}), limits=Limits(members=50))
    assert not [path for path in found(out) if not path.isdigit()]
    run(tar({"ok": zeros}), limits=Limits(ratio=2000))


def test_a_claimed_size_is_not_believed(run, out):
    for size in (2**60, -1024, -1):
        data = bytearray(tar({"x": b"1" * 2000, "y": b"2"}, "w"))
        data[124:136] = (size % 2**96).to_bytes(12)  # base 256
        data[124] = 0xFF if size < 0 else 0x80
        data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
        with pytest.raises(ValueError, match="^made (unpacks to more than .* refused|is damaged)"):
            run(bytes(data))
    assert found(out) == {}


def test_a_zip_that_lies_about_sizes_is_refused(run, out):
    data = bytearray(zipped({"a": b"x" * 1000}))
    at = data.rindex(b"PK\x01\x02") + 24
    for size in (999, 1001):
        data[at : at + 4] = struct.pack("<I", size)
        with pytest.raises(ValueError, match=r"made (is damaged \(Bad CRC|has 1,000 of the 1,001)"):
            run(bytes(data))
        assert found(out) == {}


def test_long_headers_take_no_memory(run, out, monkeypatch):
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE):
        header = tarfile.TarInfo("long")
        header.type = kind
        names = tar([(header, b"a" * 200_000), ("x", b"1")], "w:gz")
        with pytest.raises(ValueError, match="has a header of more than 65,536 bytes: refused"):
            run(names, limits=Limits(ratio=1000))
    chain = []
    for _ in range(1000):  # each a header of the next
        header = tarfile.TarInfo("long")
        header.type = tarfile.GNUTYPE_LONGNAME
        chain.append((header, b"a\0"))
    with pytest.raises(ValueError, match="has a header of more than 65,536 bytes: refused"):
        run(tar([*chain, ("x", b"1")]), limits=Limits(ratio=1000))
    monkeypatch.setattr(archives, "DIRECTORY", 1000)
    with pytest.raises(ValueError, match="has a directory of more than 1,000 bytes: refused"):
        run(zipped({"a" * 80 + str(n): b"" for n in range(20)}))
    assert found(out) == {}


def test_a_sparse_map_without_an_end_ends(run):
    header = tarfile.TarInfo("sparse")
    header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    header.pax_headers |= {"GNU.sparse.realsize": "9", "GNU.sparse.name": "x"}
    with pytest.raises(ValueError, match="made (is cut off|has a header|is damaged|holds)"):
        run(tar([(header, b"9999999\n")], "w"))


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip", "zip, stored"])
def test_an_archive_cut_anywhere_loses_nothing_that_was_whole(run, out, kind):
    data = MAKERS[kind]()
    for end in range(0, len(data) - 1, len(data) // 40):
        before = found(out) if out.exists() else {}
        try:
            run(data[:end])
        except ValueError as error:
            assert "\n" not in str(error)
            known = ("is cut off", "is empty", "is no tar, tar.gz or zip")
            assert any(text in str(error) for text in known), error
        else:  # the zeros at the end of a tar file
            assert kind == "tar" and not data[end:].strip(b"\0")
        now = found(out) if out.exists() else {}
        assert before.items() <= now.items() <= FILES.items()
    if kind != "zip" and kind != "zip, stored":
        assert len(now) == 4  # the last cut had all the files
    run(data)
    assert found(out) == FILES


def test_a_cut_is_told_with_what_is_whole(run, out):
    noise = random.Random(0).randbytes
    data = tar({"a": noise(30_000), "b": noise(30_000)}, "w")
    with pytest.raises(ValueError, match="^made is cut off behind 1 whole files$"):
        run(data[:40_000])
    assert set(found(out)) == {"a"}


def test_damage_is_told_and_what_a_damaged_gzip_gave_is_removed(run, out):
    noise = random.Random(0).randbytes
    out.mkdir()
    (out / "mine").write_bytes(b"1")
    data = bytearray(tar({name: noise(20_000) for name in "abc"}))
    data[-6] ^= 1  # the checksum, behind all the files
    with pytest.raises(ValueError, match=r"^made is damaged \(CRC check failed"):
        run(bytes(data))
    assert found(out) == {"mine": b"1"}
    data = bytearray(tar({name: noise(20_000) for name in "abc"}))
    for n in range(30_000, 30_100):
        data[n] ^= 85
    with pytest.raises(ValueError, match="^made is (damaged|cut off)"):
        run(bytes(data))
    data = bytearray(tar({name: noise(2000) for name in "abc"}, "w"))
    data[2560 + 3] ^= 1  # the name of b
    with pytest.raises(ValueError, match=r"^made is damaged \(bad checksum\)"):
        run(bytes(data))
    assert set(found(out)) == {"mine", "a"}
    stored = bytearray(zipped({name: noise(2000) for name in "xyz"}, zipfile.ZIP_STORED))
    stored[3000] ^= 1
    with pytest.raises(ValueError, match="^made is damaged .Bad CRC-32 for file 'y'"):
        run(bytes(stored))
    assert set(found(out)) == {"mine", "a", "x"}


@given(st.data())
def test_random_damage_is_one_sentence(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["tar.gz", "tar", "zip", "unzipped"]))
    made = bytearray(MAKERS[kind]() if kind != "unzipped" else tar({"a": b"1" * 600}, "w"))
    for _ in range(data.draw(st.integers(1, 4))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damage")
    (folder / "made").write_bytes(gzip.compress(made) if kind == "unzipped" else made)
    try:
        extract(folder / "made", folder / "out" / "inner", limits=Limits(members=100))
    except ValueError as error:
        assert "\n" not in str(error) and str(error).startswith("made ")
    assert {path.name for path in folder.iterdir()} <= {"made", "out"}
    if (folder / "out").exists():
        assert [path.name for path in (folder / "out").iterdir()] == ["inner"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "made is empty"),
        (b"\n<!DOCTYPE html><html></html>", "made is an HTML or XML page, not an archive"),
        (b"<?xml version='1.0'?><Error/>", "made is an HTML or XML page, not an archive"),
        (b'{"error": 1}', "made is no tar, tar.gz or zip file"),
        (zlib.compress(b"1"), "made is no tar, tar.gz or zip file"),
        (gzip.compress(b"<html></html>" * 100, mtime=0), "made is damaged"),
    ],
)
def test_what_is_no_archive_is_said(run, out, data, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(data)
    assert not out.exists()


def test_encrypted_and_other_packings_are_refused(run):
    data = bytearray(zipped({"a": b"1"}))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ValueError, match="holds 'a' encrypted: refused"):
        run(bytes(data))
    with pytest.raises(ValueError, match="packed in another way than deflate: refused"):
        run(zipped({"a": b"1" * 100}, zipfile.ZIP_BZIP2))


def test_a_full_disk_is_said_before_a_file_is_written(run, out, monkeypatch):
    usage = type("Usage", (), {"free": 12_000})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(archives, "SPARE", 5000)
    sentence = "a.mp4 needs 10,240 bytes, the disk has 12,000 free, of which 5,000 are left alone"
    with pytest.raises(OSError, match=sentence):
        run(tar())
    assert found(out) == {}
    usage.free = 10**6
    assert run(tar()).written == 4


def test_a_stopped_extraction_leaves_whole_files_and_goes_on(run, out, monkeypatch):
    def stop(source, target, size):
        target.write(source.read(100))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "copyfileobj", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tar())
    assert found(out) == {}
    (out / "videos" / archives.PART).write_bytes(b"of one that was killed")
    assert run(tar()).written == 4 and found(out) == FILES
