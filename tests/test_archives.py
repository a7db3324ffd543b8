"""Archives as they should be, cut, damaged, and made to do harm."""

import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from co3d.data import archives

NOISE = random.Random(0).randbytes
FILES = {
    "videos/a.mp4": bytes(range(256)) * 40,
    "videos/b.mp4": b"b" * 5000,
    "videos/deep/empty.txt": b"",
    "./-notes é.txt": NOISE(3000),
}


def tar(members=FILES, mode="w:gz"):
    """An archive of names and contents, or of headers as they are."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            header = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return file.getvalue()


def zipped(members=FILES):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return file.getvalue()


MAKERS = {"tar.gz": tar, "tar": lambda members=FILES: tar(members, "w"), "zip": zipped}


@pytest.fixture
def run(tmp_path):
    """Unpacks bytes as a file called `made`; returns what came out."""

    def run(data, place=lambda path: path):
        (tmp_path / "made").write_bytes(data)
        archives.unpack(tmp_path / "made", tmp_path / "out", place)
        return found(tmp_path / "out")

    return run


def found(folder):
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("kind", MAKERS)
def test_files_go_where_they_are_placed_or_nowhere(run, kind):
    data = MAKERS[kind]()
    files = run(data, lambda path: Path("videos") / path.name if path.suffix == ".mp4" else None)
    assert files == {name: FILES[name] for name in ("videos/a.mp4", "videos/b.mp4")}
    assert run(data) == {name.removeprefix("./"): FILES[name] for name in FILES}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x"])
def test_names_that_lead_elsewhere_are_refused(run, tmp_path, kind, name):
    with pytest.raises(ValueError, match="^made holds .*, which could lead elsewhere: refused$"):
        run(MAKERS[kind]([("fine", b"1"), (name, b"evil"), ("after", b"2")]))
    assert found(tmp_path / "out") == {"fine": b"1"}
    assert {path.name for path in tmp_path.iterdir()} == {"made", "out"}


@pytest.mark.parametrize("kind", ["symlink", "hard link", "device", "symlink in a zip"])
def test_links_and_devices_are_refused(run, kind):
    kinds = {"symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
    if kind in kinds:
        header = tarfile.TarInfo("odd")
        header.type, header.linkname = kinds[kind], "../../etc/passwd"
        data = tar([("fine", b"1"), (header, b""), ("odd/x", b"2")])
    else:
        header = zipfile.ZipInfo("odd")
        header.external_attr = (stat.S_IFLNK | 0o777) << 16
        data = zipped([("fine", b"1"), (header, b"../../etc/passwd")])
    with pytest.raises(ValueError, match="holds 'odd', which could lead elsewhere: refused"):
        run(data)


@pytest.mark.parametrize("make", [tar, zipped])
def test_bombs_are_refused(run, monkeypatch, make):
    zeros = bytes(10**7)
    with pytest.raises(ValueError, match=r"made unpacks to more than [0-9,]+ bytes: refused"):
        run(make({"a": zeros}))
    with pytest.raises(ValueError, match="its end is missing"):
        run(tar({"a": b"1"}) + gzip.compress(zeros))  # behind the end
    monkeypatch.setattr(archives, "MEMBERS", 50)
    with pytest.raises(ValueError, match="has more than 50 members: refused"):
        run(make({f"{n}/": b"" for n in range(51)}))


@pytest.mark.parametrize("kind", MAKERS)
def test_an_archive_that_is_cut_anywhere_is_refused(run, kind):
    data = MAKERS[kind]()
    end = len(data.rstrip(b"\0")) + 512 if kind == "tar" else len(data) - 1
    for size in range(0, end, len(data) // 40):
        with pytest.raises(ValueError, match="^made is (damaged or cut off|no whole tar or zip)"):
            run(data[:size])


@given(st.data())
def test_random_damage_is_one_sentence(tmp_path_factory, data):
    made = bytearray(MAKERS[data.draw(st.sampled_from(sorted(MAKERS)))]())
    for _ in range(data.draw(st.integers(1, 4))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damage")
    (folder / "made").write_bytes(made)
    try:
        archives.unpack(folder / "made", folder / "out", lambda path: path)
    except ValueError as error:
        assert str(error).startswith("made ")
    assert {path.name for path in folder.iterdir()} <= {"made", "out"}
