"""Every published layout of weights fits its model, strictly, and serves both twins alike."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pickle
import re

import pytest
import torch
import weight_files
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import co3d
from co3d.__main__ import cli
from co3d.zoo import checkpoints, dialects, downloads, files, specs
from co3d.zoo.checkpoints import Weights, load_into

MODELLED = [name for name, model in weight_files.NAMES.items() if model]
STRANGERS = [name for name, model in weight_files.NAMES.items() if not model]


def state_shapes(model):
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


@functools.cache
def meta_shapes(name):
    with torch.device("meta"):
        return state_shapes(co3d.create(name))


def fitted(name):
    """Our name for each of their keys, in the order of theirs."""
    listed = weight_files.published(name)
    fit = dialects.fit(listed.shapes, meta_shapes(listed.model), dialects.detect(listed.shapes))
    ours = {key: name for name, key in fit.names.items()}
    return [ours[key] for key in listed.shapes]


def test_the_lists_are_the_published_ones():
    assert len(MODELLED) == 20 and len(STRANGERS) == 3
    for name in weight_files.NAMES:
        listed = weight_files.published(name)
        assert weight_files.digest(listed.shapes) == listed.sha256


@pytest.mark.parametrize("name", MODELLED)
def test_each_list_maps_one_to_one(name):
    listed = weight_files.published(name)
    dialect, wanted = dialects.detect(listed.shapes), meta_shapes(listed.model)
    assert dialect.name == listed.dialect
    assert dialects.stranger(listed.shapes) is None
    fit = dialects.fit(listed.shapes, wanted, dialect)
    assert not fit.misfits and fit.classes == 400
    assert sorted(fit.names.values()) == sorted(listed.shapes)
    assert {*fit.names, *fit.absent} == set(wanted) and not {*fit.names} & {*fit.absent}
    for key in fit.absent:
        counts = key.endswith("num_batches_tracked") and listed.dialect == "caffe2"
        norm = key.startswith("body.res2.0.shortcut.bn.") and name.startswith("ptv_x3d")
        assert counts or norm
    for model in {*weight_files.NAMES.values()} - {listed.model, None}:
        other = dialects.fit(listed.shapes, meta_shapes(model), dialect)
        assert bool(other.misfits) != ({model, listed.model} <= {"x3d_xs", "x3d_s", "x3d_m"})


@pytest.mark.parametrize("name", [n for n in MODELLED if n.startswith(("sf", "tv"))])
def test_names_are_in_the_order_of_the_network(name):
    """Lists and our own definitions name layers as they run: a witness beside the tables."""

    def sections(keys):  # where the definitions differ in order
        parts = {}
        for key in keys:
            section = re.sub(r"\d.*?\.(main|shortcut).*", r"\1", key)
            section = re.search(r"(paths\.\w+|.*(main|shortcut)|linear5|classifier|)", section)
            parts.setdefault(section[0], []).append(key)
        return parts

    assert sections(fitted(name)) == sections(meta_shapes(weight_files.NAMES[name]))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ptv_slow_r50", "sf_slow_8x8_r50"),
        ("ptv_i3d_r50", "sf_i3d_8x8_r50"),
        ("ptv_slowfast_r50", "sf_slowfast_8x8_r50"),
        ("ptv_x3d_s", "sf_x3d_s"),
        ("ptv_x3d_l", "sf_x3d_l"),
        ("c2_SLOWONLY_8x8_R50", "sf_slow_8x8_r50"),
        ("c2_I3D_8x8_R50", "sf_i3d_8x8_r50"),
        ("c2_SLOWFAST_4x16_R50", "sf_slowfast_4x16_r50"),
        ("c2_SLOWFAST_8x8_R50", "sf_slowfast_8x8_r50"),
    ],
)
def test_dialects_agree_key_by_key(name, other):
    keys = fitted(other)
    if name.startswith("c2"):
        keys = [key for key in keys if not key.endswith("num_batches_tracked")]
    if name.startswith("ptv_x3d"):
        keys = [key for key in keys if not key.startswith("body.res2.0.shortcut.bn")]
    assert fitted(name) == keys


@contextlib.contextmanager
def blank_nets():
    """New models hold NaN, quickly made: what is not loaded shows."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_uniform_", "uniform_"):
            patch.setattr(
                torch.nn.init, name, lambda tensor, *_, **__: tensor.data.fill_(torch.nan)
            )
        yield


@pytest.fixture
def blank():
    with blank_nets():
        yield


def made(folder, name, change=lambda tensors: None):
    """A file as published under that name, and what is in it."""
    listed = weight_files.published(name)
    tensors = weight_files.values(listed.shapes)
    change(tensors)
    path = folder / f"{name}{'.pkl' if listed.dialect == 'caffe2' else '.pyth'}"
    return weight_files.write(path, tensors, listed.dialect), tensors


@pytest.fixture(scope="module", params=MODELLED)
def twins(request, tmp_path_factory):
    """The name of a list, the tensors of a file of it, the regular and the continual net."""
    path, tensors = made(tmp_path_factory.mktemp("made"), request.param)
    model = weight_files.NAMES[request.param]
    with blank_nets():
        nets = [co3d.create(name) for name in (model, f"co{model}")]
    for net in nets:
        assert net.classifier.weight.isnan().all()
        load_into(net, path)
        assert net.weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    return request.param, tensors, *nets


def test_a_made_file_fills_both_twins_alike(twins):
    name, tensors, regular, twin = twins
    state = regular.state_dict()
    assert list(state) == list(twin.state_dict())
    assert all(map(torch.equal, state.values(), twin.state_dict().values()))
    for tensor, ours in zip(tensors.values(), fitted(name), strict=True):
        assert torch.equal(tensor.reshape(state[ours].shape), state[ours])
    assert regular.weights == twin.weights
    assert regular.weights.dialect == weight_files.published(name).dialect
    assert len(regular.weights.notes) == name.startswith("ptv_x3d")


@torch.no_grad()
def test_a_made_file_gives_both_twins_equal_logits(twins):
    """Where gates and sampling are alike; time must matter, or that means little."""
    name, _, regular, twin = twins
    size = 16 if isinstance(regular.spec.architecture, specs.R2Plus1D) else 32
    clip = torch.randn(1, 3, regular.spec.frames, size, size)
    for module in regular.modules():
        if isinstance(module, co3d.nn.SqueezeExcite):
            module.gate = "frame"
        if isinstance(module, co3d.nn.TwoPath):
            module.sampling = "stride"
    expected = regular(clip)
    scale = float(expected.abs().max())
    assert (regular(clip.flip(2)) - expected).abs().max() > 0.02 * scale
    tolerance = 3e-4 if "x3d_l" in name else 1e-4
    torch.testing.assert_close(twin(clip), expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", ["x3d_xs", "cox3d_xs"])
@torch.no_grad()
def test_pytorchvideos_x3d_is_the_net_without_that_norm(name, blank, tmp_path):
    path, _ = made(tmp_path, "ptv_x3d_xs")
    model = co3d.create(name)
    notes = load_into(model, path).notes
    assert notes == ("body.res2.0.shortcut.bn is not in the file: filled with the identity",)
    clip = torch.randn(1, 3, 4, 32, 32)
    logits = model(clip)
    scale = float(logits.abs().max())
    norm = model.body.res2[0].shortcut.bn
    norm.eps, weight = 0.0, norm.weight.detach().clone()
    norm.weight.fill_(1)  # exactly the identity
    torch.testing.assert_close(model(clip), logits, rtol=0, atol=1e-5 * scale)
    norm.weight.copy_(1.1 * weight)
    assert (model(clip) - logits).abs().max() > 1e-3 * scale, "the shortcut matters"


def renamed(old, new):
    def change(tensors):
        tensors[new] = tensors.pop(old)

    return change


def swapped(one, other):
    def change(tensors):
        tensors[one], tensors[other] = tensors[other], tensors[one]

    return change


def added(key, like=None):
    def change(tensors):
        tensors[key] = tensors[like] if like else torch.zeros(3)

    return change


def dropped(*keys):
    def change(tensors):
        for key in keys:
            del tensors[key]

    return change


def replaced(key, value):
    def change(tensors):
        tensors[key] = value

    return change


def nothing(tensors):
    pass


NORM_A = "blocks.1.res_blocks.0.branch2.norm_a"
REFUSED = {
    "a wrong model": ("sf_x3d_l", "x3d_s", nothing, "weights of x3d_s, .* that fits x3d_l: sf_x"),
    "one of several": ("sf_x3d_s", "x3d_l", nothing, "fits x3d_m or x3d_s or x3d_xs: sf_x3d_s"),
    "a wrong rate": (
        *("c2_SLOWFAST_4x16_R50", "coslowfast_8x8_r50", nothing),
        "expected weights of slowfast_8x8_r50, given a file that fits slowfast_4x16_r50",
    ),
    "I3D as Slow": ("ptv_i3d_r50", "slow_8x8_r50", nothing, "a file that fits i3d_8x8_r50"),
    "swapped stem": (
        *("ptv_x3d_xs", "x3d_xs"),
        swapped("blocks.0.conv.conv_t.weight", "blocks.0.conv.conv_xy.weight"),
        r"blocks.0.conv.conv_xy.weight \(expected \(24, 1, 5, 1, 1\), given \(24, 3, 1, 3, 3\)\)",
    ),
    "missing": (
        *("sf_x3d_xs", "x3d_xs", dropped("head.lin_5.weight")),
        "sf_x3d_xs.pyth does not fit x3d_xs: missing body.linear5.weight$",
    ),
    "many missing": (
        *("tv_r2plus1d_18", "r2plus1d_18"),
        dropped(*(f"stem.{n}.{key}" for n in (1, 4) for key in ("weight", "bias", "running_var"))),
        "missing body.stem.bn.weight, .* and 1 more$",
    ),
    "a norm that PySlowFast has": (
        *("sf_x3d_xs", "x3d_xs"),
        dropped(
            *(
                f"s2.pathway0_res0.branch1_bn.{key}"
                for key in ("weight", "bias", "running_mean", "running_var")
            )
        ),
        "missing body.res2.0.shortcut.bn.weight, body.res2.0.shortcut.bn.bias, .*running_var$",
    ),
    "a norm that only X3D lacks": (
        *("ptv_slow_r50", "slow_8x8_r50"),
        dropped(
            *(
                f"blocks.1.res_blocks.0.branch1_norm.{key}"
                for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            )
        ),
        "missing body.res2.0.shortcut.bn.weight",
    ),
    "half of that norm": (
        *("ptv_x3d_xs", "x3d_xs"),
        added("blocks.1.res_blocks.0.branch1_norm.weight", "blocks.0.norm.weight"),
        "missing body.res2.0.shortcut.bn.bias, body.res2.0.shortcut.bn.running_mean",
    ),
    "unexpected": ("sf_x3d_xs", "x3d_xs", added("head.more"), "unexpected head.more$"),
    "a name of ours": (
        "sf_x3d_xs",
        "x3d_xs",
        renamed("head.lin_5.weight", "body.linear5.weight"),
        "missing body.linear5.weight; unexpected body.linear5.weight",
    ),  # fmt: skip
    "an odd name": ("sf_x3d_xs", "x3d_xs", added("head.{a|b}" * 30), "unexpected head.{a|b}"),
    "twice": (
        *("ptv_x3d_xs", "x3d_xs", added(f"{NORM_A}.0.bias", f"{NORM_A}.bias")),
        f"twice {NORM_A}.bias and {NORM_A}.0.bias .both body.res2.0.main.a_bn.bias.$",
    ),
    "another shape": (
        *("tv_r2plus1d_18", "r2plus1d_18", replaced("stem.1.bias", torch.zeros(44))),
        r"of other shape stem.1.bias \(expected \(45,\), given \(44,\)\)$",
    ),
    "leading ones": (
        *("tv_r2plus1d_18", "r2plus1d_18", replaced("stem.1.bias", torch.zeros(1, 45))),
        r"of other shape stem.1.bias \(expected \(45,\), given \(1, 45\)\)$",
    ),
    "a count that only Caffe2 lacks": (
        *("sf_x3d_xs", "x3d_xs", dropped("s1.pathway0_stem.bn.num_batches_tracked")),
        "missing body.stem.bn.num_batches_tracked$",
    ),
    "trailing ones": (
        *("tv_r2plus1d_18", "r2plus1d_18", replaced("stem.1.bias", torch.zeros(45, 1))),
        r"of other shape stem.1.bias \(expected \(45,\), given \(45, 1\)\)$",
    ),
    "a name that training also has": (
        *("c2_SLOWONLY_8x8_R50", "slow_8x8_r50", added("pred_lr_w")),
        "unexpected pred_lr_w$",
    ),
    "no shape": (
        *("tv_r2plus1d_18", "r2plus1d_18", replaced("fc.weight", torch.zeros(()))),
        r"of other shape fc.weight \(expected \(400, 512\), given \(\)\)$",
    ),
    "another dtype": (
        *("sf_x3d_xs", "x3d_xs", replaced("head.projection.bias", torch.zeros(400).double())),
        "numbers of other types than expected: head.projection.bias is torch.float64",
    ),
    "not finite": (
        *("sf_x3d_xs", "x3d_xs", replaced("head.projection.bias", torch.full((400,), torch.inf))),
        "not finite, in head.projection.bias",
    ),
}


@pytest.mark.parametrize(("name", "model", "change", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(name, model, change, words, blank, tmp_path):
    path, _ = made(tmp_path, name, change)
    net = co3d.create(model)
    with pytest.raises(ValueError, match=words) as caught:
        load_into(net, path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500
    assert net.classifier.weight.isnan().all(), "nothing is loaded"
    assert not hasattr(net, "weights")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ptv_r2plus1d_r50", r"PyTorchVideo's R\(2\+1\)D-50, which has no model here"),
        ("tv_r3d_18", "R3D-18, which has no model here"),
        ("tv_mc3_18", "MC3-18, which has no model here"),
    ],
)
def test_lists_without_a_model_are_refused_by_name(name, words, blank, tmp_path):
    assert name in STRANGERS
    path, _ = made(tmp_path, name)
    with pytest.raises(
        ValueError, match=f"expected weights of r2plus1d_18, but {path.name} is {words}"
    ):
        load_into(co3d.create("r2plus1d_18"), path)


def test_unknown_dialects_name_the_known(blank, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({f"encoder.{n}.weight": torch.zeros(2) for n in range(7)}, path)
    words = "other.pt does not fit x3d_xs: expected keys as in one of ours, pyslowfast, .*caffe2, "
    with pytest.raises(ValueError, match=words + "given encoder.0.weight, .* and 2 more"):
        load_into(co3d.create("x3d_xs"), path)


def charades(tensors):
    for key in [key for key in tensors if "proj" in key or key.startswith("pred")]:
        tensors[key] = tensors[key][:157]


@pytest.mark.parametrize("name", ["ptv_slow_r50", "sf_x3d_xs"])
def test_other_numbers_of_classes(name, blank, tmp_path):
    path, tensors = made(tmp_path, name, charades)
    regular = weight_files.NAMES[name]
    head = next(tensors[key] for key in tensors if key.endswith(("proj.weight", "tion.weight")))
    for model in (regular, f"co{regular}"):
        net = co3d.create(model, num_classes=157)
        weights, taken = load_into(net, path), name == "ptv_slow_r50"
        note = "taken for charades, which has 157 classes: frames are fed as BGR"
        assert weights.notes == (note,) * taken and weights.classes == 157
        assert weights.training_data == "charades" * taken
        assert weights.scores == ("sigmoid" if taken else "softmax")
        assert torch.equal(net.classifier.weight, head) and len(head) == 157
    words = "expected 400 classes, given 157 in .*: create the model with num_classes=157, or ask"
    with pytest.raises(ValueError, match=words):
        load_into(co3d.create(regular), path)


def test_a_new_head_stays_as_it_was(blank, tmp_path):
    path, tensors = made(tmp_path, "sf_x3d_xs")
    for classes in (400, 12):
        net = co3d.create("cox3d_xs", num_classes=classes)
        net.classifier.weight.data.fill_(7)
        notes = load_into(net, path, new_head=True).notes
        assert notes == (f"new head of {classes} classes in place of the file's 400",)
        assert (net.classifier.weight == 7).all() and net.classifier.bias.isnan().all()
        assert torch.equal(net.body.linear5.weight, tensors["head.lin_5.weight"])


@torch.no_grad()
def test_layouts_of_the_same_numbers(blank, tmp_path):
    """A prefix, a classifier that is a convolution, arrays without trailing ones."""
    path, tensors = made(tmp_path, "ptv_x3d_xs")
    plain, net = co3d.create("x3d_xs"), co3d.create("x3d_xs")
    load_into(plain, path)
    other = {f"model.{key}": tensor for key, tensor in tensors.items()}
    other["model.blocks.5.proj.weight"] = tensors["blocks.5.proj.weight"].view(400, 2048, 1, 1, 1)
    load_into(net, weight_files.write(path, other, "pytorchvideo"))
    assert all(map(torch.equal, net.state_dict().values(), plain.state_dict().values()))

    def flat(tensors):
        for key, tensor in tensors.items():
            while tensor.ndim > 1 and tensor.shape[-1] == 1:
                tensor = tensor[..., 0]
            tensors[key] = tensor

    path, tensors = made(tmp_path, "c2_SLOWONLY_8x8_R50", flat)
    net = co3d.create("slow_8x8_r50")
    load_into(net, path)
    assert tensors["res2_0_branch2c_w"].ndim == 2
    loaded = net.body.res2[0].main.c.weight
    assert torch.equal(loaded[..., 0, 0, 0], tensors["res2_0_branch2c_w"])
    assert not torch.stack([v for k, v in net.state_dict().items() if "num_b" in k]).any()


def test_made_caffe2_files_are_what_numpy_reads():
    tensors = weight_files.values({"conv1_w": (3, 2, 1, 1, 1), "pred_b": (4,)})
    blobs = pickle.loads(weight_files.python2_pickle(tensors, "_w"), encoding="latin1")["blobs"]
    assert sorted(blobs) == ["conv1_w", "conv1_w_momentum", "lr", "model_iter", "pred_b"]
    for key, tensor in tensors.items():
        assert torch.equal(torch.from_numpy(blobs[key].copy()), tensor)


def test_expected_hashes(blank, tmp_path):
    path, _ = made(tmp_path, "sf_x3d_xs")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for expected in (sha256, sha256[:8].upper()):
        assert load_into(co3d.create("x3d_xs"), path, expected_sha256=expected).sha256 == sha256
    with pytest.raises(ValueError, match=f"expected sha256 {'0' * 64} of .*, given {sha256}"):
        load_into(co3d.create("x3d_xs"), path, expected_sha256="0" * 64)
    with pytest.raises(ValueError, match="expected a sha256 of 8 to 64 digits, given '12'"):
        load_into(co3d.create("x3d_xs"), path, expected_sha256="12")


def convert(*arguments):
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


def test_convert_writes_ours_with_its_origin(blank, tmp_path):
    path, _ = made(tmp_path, "ptv_x3d_xs")
    out, sha256 = tmp_path / "new" / "ours.safetensors", checkpoints.sha256(path)
    options = ("--model", "cox3d_xs", "--training-data", "kinetics400", "--licence", "Apache-2.0")
    result = convert(path, out, *options)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.output.splitlines() if line[0] != "s")
    assert lines["model"] == "x3d_xs and cox3d_xs" and lines["dialect"] == "pytorchvideo"
    assert lines["keys"] == "568, 400 classes" and "identity" in lines["note"]
    for file in (path, out):
        assert checkpoints.sha256(file) in result.output
    assert [p.name for p in out.parent.iterdir()] == ["ours.safetensors"]
    with safe_open(out, framework="pt") as file:
        record = file.metadata()
    assert record == {
        **{"model": "x3d_xs", "source": "ptv_x3d_xs.pyth", "source_sha256": sha256},
        **{"dialect": "pytorchvideo", "training_data": "kinetics400", "licence": "Apache-2.0"},
        "notes": "body.res2.0.shortcut.bn is not in the file: filled with the identity",
        **{"scores": "softmax", "channel_order": "rgb"},
    }
    theirs, ours = co3d.create("x3d_xs"), co3d.create("cox3d_xs")
    load_into(theirs, path)
    load_into(ours, out)
    assert all(map(torch.equal, theirs.state_dict().values(), ours.state_dict().values()))
    assert ours.weights == Weights(
        *(path.name, checkpoints.sha256(out), "kinetics400", "Apache-2.0", "pytorchvideo"),
        *((record["notes"],), sha256, 400),
    )
    again = tmp_path / "again.safetensors"
    assert convert(out, again, "--model", "x3d_xs").exit_code == 0
    with safe_open(again, framework="pt") as file:
        assert file.metadata() == record, "the origin stays through another conversion"


def test_convert_takes_other_classes_and_sources(blank, tmp_path):
    path, _ = made(tmp_path, "sf_x3d_xs", charades)
    out = tmp_path / "ours.safetensors"
    more = ("--model", "x3d_xs", "--num-classes", 157, "--source", "https://example.org/w.pyth")
    result = convert(path, out, *more)
    assert result.exit_code == 0 and "157 classes" in result.output
    with safe_open(out, framework="pt") as file:
        assert file.metadata()["source"] == "https://example.org/w.pyth"


def test_convert_refuses(tmp_path, capsys):
    from co3d.__main__ import main

    path = _saved_in(tmp_path, "mini.safetensors")
    link = tmp_path / "link.safetensors"
    link.hardlink_to(path)
    html = tmp_path / "w.pyth"
    html.write_text("<!DOCTYPE html><html><body>not found</body></html>")
    out, before = tmp_path / "out.safetensors", path.read_bytes()
    for arguments, words in {
        (path, path): "expected another file for the output, given the input",
        (path, link): "expected another file for the output",
        (path, tmp_path / "out.pth"): "expected an output file that ends in .safetensors, given",
        (path, tmp_path): "expected an output file that ends in .safetensors",
        (html, out): "w.pyth is an HTML page",
        (tmp_path / "none", out): "there is no weights file",
        (path, out, "--num-classes", 3): "expected 3 classes, given 12",
    }.items():
        with pytest.raises(SystemExit) as caught:
            main(["convert", *map(str, arguments), "--model", "x3d_mini"])
        error = capsys.readouterr().err
        assert caught.value.code == 2 and error.count("\n") == 1 and words in error
    assert path.read_bytes() == before and not out.exists()
    assert not list(tmp_path.glob("*.part"))


def _saved_in(folder, file, name="x3d_mini"):
    path = folder / file
    checkpoints.save(
        *(co3d.create(name), path), training_data="made", source="a test", licence="none"
    )
    return path


def test_convert_leaves_other_files_alone(tmp_path):
    path = _saved_in(tmp_path, "q.safetensors")
    path = path.rename(tmp_path / "q.safetensors.part")
    before = path.read_bytes()
    result = convert(path, tmp_path / "q.safetensors", "--model", "x3d_mini")
    assert result.exit_code == 0 and path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture
def charades_mini(tmp_path, monkeypatch):
    """Charades weights as if published of slow_mini; their file, in the cache."""
    monkeypatch.setenv("CACHE_PATH", str(tmp_path / "cache"))
    known = specs.Checkpoint("charades", "https://example.org/c.safetensors", 157, "bgr", "sigmoid")
    for name in ("slow_mini", "coslow_mini"):
        record = dataclasses.replace(specs.SPECS[name], checkpoints=(known,))
        monkeypatch.setitem(specs.SPECS, name, record)
    path = downloads.place(record, known)
    model = co3d.create("slow_mini", num_classes=157)
    checkpoints.save(model, path, training_data="", source="", licence="")
    return path


def test_a_file_with_the_classes_of_charades_is_taken_for_it(charades_mini):
    for more in ({"num_classes": 157}, {"num_classes": 3, "new_head": True}, {"new_head": True}):
        model, transform = co3d.load("coslow_mini", charades_mini, **more)
        assert transform.channel_order == "bgr" and model.weights.classes == 157
        assert model.weights.training_data == "charades"
        assert model.weights.notes[-1].endswith("157 classes: frames are fed as BGR")
        assert model.weights.scores == ("softmax" if "new_head" in more else "sigmoid")


def test_scores_are_those_of_the_weights(charades_mini):
    logits = torch.randn(2, 157)
    model, _ = co3d.load("coslow_mini", "charades")
    assert torch.equal(co3d.scores(model, logits), logits.sigmoid())
    for model in (co3d.create("slow_mini"), co3d.load("x3d_mini", "synthetic-kinetics")[0]):
        assert torch.equal(co3d.scores(model, logits), logits.softmax(1))


def test_convert_knows_the_files_of_the_cache(charades_mini, tmp_path):
    out, elsewhere = tmp_path / "out.safetensors", tmp_path / "copy.pth"
    assert convert(charades_mini, out, "--model", "coslow_mini").exit_code == 0
    with safe_open(out, framework="pt") as file:
        record = file.metadata()
    assert record["source"] == "https://example.org/c.safetensors"
    assert (record["licence"], record["training_data"]) == ("Apache-2.0", "charades")
    elsewhere.write_bytes(charades_mini.read_bytes())
    assert convert(elsewhere, out, "--model", "slow_mini").exit_code != 0
    options = ("--model", "slow_mini", "--training-data", "charades")
    assert "157 classes" in convert(elsewhere, out, *options).output


def test_classes_are_checked_before_a_download(charades_mini, monkeypatch):
    monkeypatch.setattr(downloads, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(ValueError, match="expected 157 classes as charades has, given .*=3: "):
        co3d.load("slow_mini", "charades", num_classes=3)
    for weights in ("charades", charades_mini):
        with pytest.raises(ValueError, match="expected num_classes of 1 or more, given 0"):
            co3d.load("slow_mini", weights, num_classes=0)


def test_folders_are_named_as_such(tmp_path):
    with pytest.raises(ValueError, match="given the folder '"):
        co3d.load("x3d_mini", tmp_path)
    with pytest.raises(ValueError, match="is a folder or a device"):
        load_into(co3d.create("x3d_mini"), tmp_path)


def test_a_file_without_a_head_takes_a_new_one(tmp_path):
    path = _saved_in(tmp_path, "w.safetensors")
    tensors = {k: v for k, v in load_file(path).items() if not k.startswith("classifier.")}
    save_file(tensors, path)
    model, _ = co3d.load("cox3d_mini", path, num_classes=3, new_head=True)
    assert torch.equal(model.body.conv5.conv.weight, tensors["body.conv5.conv.weight"])
    assert model.weights.notes == ("new head of 3 classes in place of the file's none",)
    assert model.weights.classes is None
    with pytest.raises(ValueError, match="missing classifier.weight, classifier.bias"):
        co3d.load("cox3d_mini", path)
    save_file({**tensors, "classifier.bias": torch.ones(2, 2)}, path)
    co3d.load("cox3d_mini", path, num_classes=3, new_head=True)


EVIL = "\x1b[2J\n\u202eé" * 999


def test_text_of_a_file_is_quoted(tmp_path):
    path, model = _saved_in(tmp_path, "w.safetensors"), co3d.create("x3d_mini")
    tensors = load_file(path)
    origin = dict.fromkeys(("source", "licence", "training_data", "notes"), EVIL)
    save_file(tensors, path, metadata=origin)
    weights = load_into(model, path)
    for text in (weights.source, weights.licence, weights.training_data, *weights.notes):
        assert text.isprintable() and text.isascii() and len(text) == 500
    hostile = (
        (tensors, {"model": EVIL}),
        ({EVIL: torch.zeros(1)}, {}),
        ({**tensors, EVIL: torch.zeros(1)}, {}),
        ({**tensors, "body.res2." + EVIL: torch.zeros(1)}, {}),
    )
    for held, metadata in hostile:
        save_file(held, path, metadata=metadata)
        with pytest.raises(ValueError) as caught:
            load_into(model, path)
        sentence = str(caught.value)
        assert sentence.isprintable() and sentence.isascii() and len(sentence) < 700


def test_far_too_many_keys_are_not_held_against_every_model(tmp_path, monkeypatch):
    path, tried, fit = tmp_path / "w.safetensors", [], dialects.fit
    save_file({f"body.{n}": torch.zeros(1) for n in range(files.TENSORS)}, path)
    monkeypatch.setattr(dialects, "fit", lambda *given: tried.append(1) or fit(*given))
    with pytest.raises(ValueError, match="unexpected body.0, .* and 9995 more"):
        load_into(co3d.create("x3d_mini"), path)
    assert len(tried) == 1


@torch.no_grad()
def test_saved_weights_serve_both_twins(tmp_path):
    path, saved = tmp_path / "w.safetensors", co3d.create("x3d_mini")
    checkpoints.save(saved, path, training_data="made", source="a test", licence="none")
    clip = torch.randn(1, 3, 16, 48, 48)
    regular, transform = co3d.load("x3d_mini", path)
    torch.testing.assert_close(regular(clip), saved(clip))
    assert transform == co3d.Transform(48, (0.45,) * 3, (0.225,) * 3)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert regular.weights == Weights("a test", sha256, "made", "none", classes=12)
    assert regular.weights.dialect == "ours" and regular.weights.notes == ()
    stream, _ = co3d.load("cox3d_mini", str(path), window=32)
    assert torch.equal(stream.body.conv5.conv.weight, saved.body.conv5.conv.weight)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_saving_that_fails_leaves_what_was_there(tmp_path):
    path = _saved_in(tmp_path, "w.safetensors")
    before, model = path.read_bytes(), co3d.create("x3d_mini")
    with pytest.raises(TypeError):
        checkpoints.save(model, path, training_data="made", source="a test", licence=3)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def changed(change):
    def spoil(path):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"model": "x3d_mini"})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:5000]), "is not a whole safetensors file"),
        (lambda p: p.write_text("<html>not found</html>"), "is an HTML page"),
        (
            changed(replaced("classifier.bias", torch.full((12,), torch.nan))),
            "not finite, in classifier.bias",
        ),
        (
            changed(renamed("classifier.bias", "classifier.other")),
            "missing classifier.bias; unexpected classifier.other",
        ),
        (
            changed(dropped("body.stem.bn.num_batches_tracked")),
            "missing body.stem.bn.num_batches_tracked$",
        ),
        (
            changed(replaced("classifier.bias", torch.zeros(13))),
            r"classifier.bias \(expected \(12,\), given \(13,\)\)",
        ),
        (
            changed(replaced("classifier.bias", torch.zeros(12, 1))),
            r"classifier.bias \(expected \(12,\), given \(12, 1\)\)",
        ),
        (
            changed(replaced("classifier.bias", torch.zeros(12).half())),
            "other types .* classifier.bias is torch.float16",
        ),
        (
            lambda p: _saved_in(p.parent, p.name, "x3d_xs"),
            "expected weights of x3d_mini, given those of x3d_xs",
        ),
    ],
)
def test_our_files_that_do_not_fit_are_refused(tmp_path, spoil, words):
    path = _saved_in(tmp_path, "w.safetensors")
    spoil(path)
    with pytest.raises(ValueError, match=words):
        co3d.load("x3d_mini", path)


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file"):
        co3d.load("x3d_mini", tmp_path / "none.safetensors")


def test_shipped_weights_stay_readable():
    for name in co3d.list_models():
        for data, path in checkpoints.shipped(name).items():
            weights = load_into(co3d.create(name), path)
            assert weights.training_data == data.partition(":")[0] and weights.dialect == "ours"
            assert json.dumps(weights.notes) == "[]"
