"""Every published layout of weights fits its model, strictly, and serves both twins alike."""

import contextlib
import functools
import hashlib
import re

import pytest
import torch
import weight_files

import co3d
from co3d.zoo import dialects, specs
from co3d.zoo.checkpoints import load_into

MODELLED = [name for name, model in weight_files.NAMES.items() if model]


@functools.cache
def meta_shapes(name):
    with torch.device("meta"):
        state = co3d.create(name).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def fitted(name):
    """Our name for each of their keys, in the order of theirs."""
    listed = weight_files.published(name)
    fit = dialects.fit(listed.shapes, meta_shapes(listed.model))
    ours = {key: name for name, key in fit.names.items()}
    return [ours[key] for key in listed.shapes]


def test_the_lists_are_the_published_ones():
    assert len(MODELLED) == 20 and len(weight_files.NAMES) == 23
    for name in weight_files.NAMES:
        listed = weight_files.published(name)
        assert weight_files.digest(listed.shapes) == listed.sha256


@pytest.mark.parametrize("name", MODELLED)
def test_each_list_maps_one_to_one(name):
    listed = weight_files.published(name)
    wanted = meta_shapes(listed.model)
    assert dialects.stranger(listed.shapes) is None
    fit = dialects.fit(listed.shapes, wanted)
    assert not fit.misfits and (fit.dialect, fit.classes) == (listed.dialect, 400)
    assert sorted(fit.names.values()) == sorted(listed.shapes)
    assert {*fit.names, *fit.absent} == set(wanted) and not {*fit.names} & {*fit.absent}
    for key in fit.absent:
        counts = key.endswith("num_batches_tracked") and listed.dialect == "caffe2"
        norm = key.startswith("body.res2.0.shortcut.bn.") and name.startswith("ptv_x3d")
        assert counts or norm
    for model in {*weight_files.NAMES.values()} - {listed.model, None}:
        other = dialects.fit(listed.shapes, meta_shapes(model))
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

    def blank(tensor, *_, **__):
        tensor.data.fill_(torch.nan)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_uniform_", "uniform_"):
            patch.setattr(torch.nn.init, name, blank)
        yield


@pytest.fixture
def blank():
    with blank_nets():
        yield


def made(folder, name, changes=()):
    """A file as published under that name, and its tensors; `changes` drop keys with None."""
    listed = weight_files.published(name)
    tensors = {**weight_files.values(listed.shapes), **dict(changes)}
    tensors = {key: x for key, x in tensors.items() if x is not None}
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


@torch.no_grad()
def test_pytorchvideos_x3d_is_the_net_without_that_norm(blank, tmp_path):
    path, _ = made(tmp_path, "ptv_x3d_xs")
    model = co3d.create("x3d_xs")
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


NORM_A = "blocks.1.res_blocks.0.branch2.norm_a"
BRANCH1 = "blocks.1.res_blocks.0.branch1_norm"
REFUSED = {
    "a wrong model": ("sf_x3d_l", "x3d_s", {}, "weights of x3d_s, .* that fits x3d_l: sf_x"),
    "one of several": ("sf_x3d_s", "x3d_l", {}, "fits x3d_m or x3d_s or x3d_xs: sf_x3d_s"),
    "a wrong rate": (
        "c2_SLOWFAST_4x16_R50",
        "coslowfast_8x8_r50",
        {},
        "expected weights of slowfast_8x8_r50, given a file that fits slowfast_4x16_r50",
    ),
    "I3D as Slow": ("ptv_i3d_r50", "slow_8x8_r50", {}, "a file that fits i3d_8x8_r50"),
    "R(2+1)D-50": (
        "ptv_r2plus1d_r50",
        "r2plus1d_18",
        {},
        r"expected weights of r2plus1d_18, but .*pyth is PyTorchVideo's R\(2\+1\)D-50, which",
    ),
    "R3D": ("tv_r3d_18", "r2plus1d_18", {}, "is R3D-18, which has no model here"),
    "MC3": ("tv_mc3_18", "r2plus1d_18", {}, "is MC3-18, which has no model here"),
    "swapped stem": (
        "ptv_x3d_xs",
        "x3d_xs",
        {
            "blocks.0.conv.conv_t.weight": torch.zeros(24, 1, 5, 1, 1),
            "blocks.0.conv.conv_xy.weight": torch.zeros(24, 3, 1, 3, 3),
        },
        r"blocks.0.conv.conv_xy.weight \(expected \(24, 1, 5, 1, 1\), given \(24, 3, 1, 3, 3\)\)",
    ),
    "many missing": (
        "tv_r2plus1d_18",
        "r2plus1d_18",
        {f"stem.{n}.{key}": None for n in (1, 4) for key in ("weight", "bias", "running_var")},
        "does not fit r2plus1d_18: missing body.stem.bn.weight, .* and 1 more$",
    ),
    "a norm that PyTorchVideo's X3D alone lacks": (
        "ptv_slow_r50",
        "slow_8x8_r50",
        {f"{BRANCH1}.weight": None, f"{BRANCH1}.bias": None},
        "missing body.res2.0.shortcut.bn.weight, body.res2.0.shortcut.bn.bias$",
    ),
    "half of that norm": (
        "ptv_x3d_xs",
        "x3d_xs",
        {f"{BRANCH1}.weight": torch.zeros(24)},
        "missing body.res2.0.shortcut.bn.bias, body.res2.0.shortcut.bn.running_mean",
    ),
    "a count that Caffe2 alone lacks": (
        "sf_x3d_xs",
        "x3d_xs",
        {"s1.pathway0_stem.bn.num_batches_tracked": None},
        "missing body.stem.bn.num_batches_tracked$",
    ),
    "unexpected": (
        "c2_SLOWONLY_8x8_R50",
        "slow_8x8_r50",
        {"pred_lr_w": torch.zeros(3)},
        "unexpected pred_lr_w$",
    ),
    "a name of ours": (
        "sf_x3d_xs",
        "x3d_xs",
        {"head.lin_5.weight": None, "body.linear5.weight": torch.zeros(2048, 432, 1, 1, 1)},
        "missing body.linear5.weight; unexpected body.linear5.weight",
    ),
    "twice": (
        "ptv_x3d_xs",
        "x3d_xs",
        {f"{NORM_A}.0.bias": torch.zeros(54)},
        f"twice {NORM_A}.bias and {NORM_A}.0.bias .both body.res2.0.main.a_bn.bias.$",
    ),
    "another shape": (
        "tv_r2plus1d_18",
        "r2plus1d_18",
        {"stem.1.bias": torch.zeros(45, 1)},
        r"of other shape stem.1.bias \(expected \(45,\), given \(45, 1\)\)$",
    ),
    "no shape": (
        "tv_r2plus1d_18",
        "r2plus1d_18",
        {"fc.weight": torch.zeros(())},
        r"of other shape fc.weight \(expected \(400, 512\), given \(\)\)$",
    ),
    "another dtype": (
        "sf_x3d_xs",
        "x3d_xs",
        {"head.projection.bias": torch.zeros(400).double()},
        "numbers of other types than expected: head.projection.bias is torch.float64",
    ),
    "not finite": (
        "sf_x3d_xs",
        "x3d_xs",
        {"head.projection.bias": torch.full((400,), torch.inf)},
        "not finite, in head.projection.bias",
    ),
}


@pytest.mark.parametrize(("name", "model", "changes", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(name, model, changes, words, blank, tmp_path):
    path, _ = made(tmp_path, name, changes)
    net = co3d.create(model)
    with pytest.raises(ValueError, match=words) as caught:
        load_into(net, path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500
    assert net.classifier.weight.isnan().all(), "nothing is loaded"
    assert not hasattr(net, "weights")


def test_unknown_dialects_name_the_known(blank, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({f"encoder.{n}.weight": torch.zeros(2) for n in range(7)}, path)
    words = "other.pt does not fit x3d_xs: expected keys as in one of ours, pyslowfast, .*caffe2, "
    with pytest.raises(ValueError, match=words + "given encoder.0.weight, .* and 2 more"):
        load_into(co3d.create("x3d_xs"), path)


@pytest.mark.parametrize(
    ("name", "layer"), [("ptv_slow_r50", "blocks.5.proj"), ("sf_x3d_xs", "head.projection")]
)
def test_other_numbers_of_classes(name, layer, blank, tmp_path):
    """157 classes are Charades where Charades weights are published, of Slow alone."""
    regular = weight_files.NAMES[name]
    head = torch.randn(157, 2048)
    path, _ = made(tmp_path, name, {f"{layer}.weight": head, f"{layer}.bias": torch.zeros(157)})
    for model in (regular, f"co{regular}"):
        net = co3d.create(model, num_classes=157)
        weights, taken = load_into(net, path), name == "ptv_slow_r50"
        note = "taken for charades, which has 157 classes: frames are fed as BGR"
        assert weights.notes == (note,) * taken and weights.classes == 157
        assert weights.training_data == "charades" * taken
        assert weights.scores == ("sigmoid" if taken else "softmax")
        assert torch.equal(net.classifier.weight, head)
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

    listed = weight_files.values(weight_files.published("c2_SLOWONLY_8x8_R50").shapes)
    flat = {key: x.flatten(1) for key, x in listed.items() if x[0].ndim and x[0, 0].numel() == 1}
    path, _ = made(tmp_path, "c2_SLOWONLY_8x8_R50", flat)
    net = co3d.create("slow_8x8_r50")
    load_into(net, path)
    loaded = net.body.res2[0].main.c.weight
    assert torch.equal(loaded[..., 0, 0, 0], flat["res2_0_branch2c_w"])
    assert not torch.stack([v for k, v in net.state_dict().items() if "num_b" in k]).any()
