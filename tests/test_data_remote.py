"""Data sets at an address: the same videos as in a folder, fetched once, checked and evicted."""

import fsspec
import pytest
from nets import clip_net
from standin.standin import Store
from test_sets_rows import frames

from co3d.data import remote, video
from co3d.data.dataset import Address
from co3d.data.sets import open_set
from co3d.measure import accuracy, readings

CLASSES, EACH = 12, 1


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The root of a store with a folder of videos per class in `bucket/made`."""
    root = tmp_path / "store"
    for n in range(CLASSES * EACH):
        path = root / "bucket" / "made" / f"class {n % CLASSES:02d}" / f"{n}.mp4"
        video.write(path, frames(n, 30), 15)
    fsspec.register_implementation("standin", Store, clobber=True)
    monkeypatch.setenv("STANDIN_ROOT", str(root))
    monkeypatch.setenv("CACHE_PATH", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    return root


def fetched(tmp_path):
    return sorted(p for p in (tmp_path / "cache" / "fetched").iterdir() if p.name != "cache")


def test_a_set_at_an_address_ends_in_the_same_bytes_as_in_a_folder(store, tmp_path, inline):
    some = readings.readings([("x3d_mini", clip_net())], "made", ["native"])
    files = []
    for place in (str(store / "bucket" / "made"), "standin://bucket/made"):
        data = open_set(place)
        ((result,), _) = accuracy.evaluate(some, data, folder=tmp_path / place[:3], progress=False)
        files.append(result.run.file)
        assert result.row["n_scored"] == CLASSES * EACH
    assert files[0].name == files[1].name and files[0].read_bytes() == files[1].read_bytes()
    assert len(fetched(tmp_path)) == CLASSES * EACH
    assert isinstance(data.videos[0].path, Address)


def test_published_annotations_are_read_at_an_address(store):
    rows = ["label,youtube_id,time_start,time_end,split", "abseiling,aaaaaaaaaaa,1,11,val"]
    rows += ["abseiling,bbbbbbbbbbb,1,11,val"]
    place = store / "bucket" / "k400"
    video.write(place / "val" / "aaaaaaaaaaa_000001_000011.mp4", frames(0, 30), 15)
    (place / "annotations").mkdir()
    (place / "annotations" / "val.csv").write_text("\n".join(rows) + "\n")
    there, missing = open_set("kinetics400", "val", root="standin://bucket/k400").videos
    assert there.path.url == "standin://bucket/k400/val/aaaaaaaaaaa_000001_000011.mp4"
    assert missing.path is None and there.class_id == 0


def test_a_file_is_fetched_once_and_a_store_that_fails_asked_three_times(store):
    address, other = (clip.path for clip in open_set("standin://bucket/made").videos[:2])
    (store / "FAILS").write_text("2")
    with remote.local(address) as path:
        assert path.stat().st_size == address.size
    (store / "FAILS").write_text("9")
    with remote.local(address) as path:  # the store is not asked again
        assert path.stat().st_size == address.size
    sentence = "cannot be read: TimeoutError: the store did not answer"
    with pytest.raises(OSError, match=sentence), remote.local(other):
        pass


def test_another_size_than_said_is_refused_and_not_kept(store, tmp_path):
    address = open_set("standin://bucket/made").videos[0].path
    place = store / address.url.removeprefix("standin://")
    place.write_bytes(place.read_bytes()[:-5])
    with pytest.raises(OSError, match="came with .* instead of"), remote.local(address):
        pass
    assert not fetched(tmp_path)


def test_the_cache_is_bounded(store, tmp_path, monkeypatch):
    videos = open_set("standin://bucket/made").videos
    size = videos[0].path.size
    monkeypatch.setenv("FETCHED_GB", f"{2.5 * size / 1e9:.9f}")
    with remote.local(videos[0].path) as read:
        pass
    for one in videos[1:5]:
        with remote.local(one.path) as path:
            pass
    held = fetched(tmp_path)
    assert read not in held and path in held and sum(p.stat().st_size for p in held) <= 2.5 * size


@pytest.mark.parametrize(
    "address, sentence",
    [
        ("standin://bucket/none", "nothing"),
        ("nosuch://bucket/made", "cannot be read: Protocol not known"),
    ],
)
def test_addresses_that_lead_nowhere(store, address, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        open_set(address)


def test_generated_sets_have_no_address_and_names_stay_below_it(store, monkeypatch):
    with pytest.raises(ValueError, match="expected an address only of kinetics400 or charades"):
        open_set("synthetic-kinetics", root="standin://bucket/made")
    monkeypatch.setattr(Store, "find", lambda *_, **__: {"bucket/made/../x.mp4": {"size": 1}})
    with pytest.raises(ValueError, match="expected names below"):
        open_set("standin://bucket/made")


def test_a_bound_that_is_none_is_refused_before_any_work(store, tmp_path, monkeypatch):
    monkeypatch.setenv("FETCHED_GB", "much")
    with pytest.raises(ValueError, match="expected FETCHED_GB, gigabytes of fetched videos"):
        open_set("standin://bucket/made")
    assert not (tmp_path / "cache").exists()
