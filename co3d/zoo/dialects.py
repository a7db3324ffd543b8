"""The names that other projects give to the same weights: one table of rules per project.

A key is rewritten by all rules of its dialect in their order. The rules are forgiving, `fit` is
not: every key must become another key of the model, with its shape, and none may be missing.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .files import some

Shapes = Mapping[str, tuple[int, ...]]

DIALECTS = {
    "ours": (),
    # https://github.com/facebookresearch/SlowFast, slowfast/models at 287ec00
    "pyslowfast": (
        (r"^s1_fuse\.", "body.paths.lateral.stem."),
        (r"^s([2-4])_fuse\.", r"body.paths.lateral.res\1."),
        (r"\.conv_f2s\.", ".conv."),
        (r"^s1\.pathway0_stem\.", "body.stem."),
        (r"^s1\.pathway1_stem\.", "body.paths.fast.stem."),
        (r"^s([2-5])\.pathway0_res(\d+)\.", r"body.res\1.\2."),
        (r"^s([2-5])\.pathway1_res(\d+)\.", r"body.paths.fast.res\1.\2."),
        (r"\.branch2\.", ".main."),
        (r"\.branch1\.", ".shortcut.conv."),
        (r"\.branch1_bn\.", ".shortcut.bn."),
        (r"^head\.conv_5\.", "body.conv5.conv."),
        (r"^head\.conv_5_bn\.", "body.conv5.bn."),
        (r"^head\.lin_5\.", "body.linear5."),
        (r"^head\.projection\.", "classifier."),
    ),
    # https://github.com/facebookresearch/pytorchvideo, models/hub at 0.1.5. In X3D's stem, conv_t
    # is the spatial convolution and conv_xy the temporal one.
    "pytorchvideo": (
        (r"^blocks\.1\.multipathway_fusion\.", "body.paths.lateral.stem."),
        (r"^blocks\.([2-4])\.multipathway_fusion\.", r"body.paths.lateral.res\1."),
        (r"\.conv_fast_to_slow\.", ".conv."),
        (r"^blocks\.1\.multipathway_blocks\.1\.", "body.paths.fast.stem."),
        (r"^blocks\.([2-5])\.multipathway_blocks\.1\.", r"body.paths.fast.res\1."),
        (r"^blocks\.1\.(multipathway_blocks\.0\.)?", "body.stem."),
        (r"^blocks\.([2-5])\.(multipathway_blocks\.0\.)?", r"body.res\1."),
        (r"\.res_blocks\.", "."),
        (r"stem\.conv\.conv_t\.", "stem.conv_xy."),
        (r"stem\.conv\.conv_xy\.", "stem.conv_t."),
        (r"\.branch1_conv\.", ".shortcut.conv."),
        (r"\.branch1_norm\.", ".shortcut.bn."),
        (r"\.branch2\.conv_([abc])\.", r".main.\1."),
        (r"\.branch2\.norm_b\.1\.block\.0\.", ".main.se.fc1."),
        (r"\.branch2\.norm_b\.1\.block\.2\.", ".main.se.fc2."),
        (r"\.branch2\.norm_([abc])\.(0\.)?", r".main.\1_bn."),
        (r"(stem|lateral\.\w+)\.norm\.", r"\1.bn."),
        (r"^blocks\.6\.pool\.pre_conv\.", "body.conv5.conv."),
        (r"^blocks\.6\.pool\.pre_norm\.", "body.conv5.bn."),
        (r"^blocks\.6\.pool\.post_conv\.", "body.linear5."),
        (r"^blocks\.6\.proj\.", "classifier."),
    ),
    # https://github.com/pytorch/vision, torchvision/models/video/resnet.py
    "torchvision": (
        (r"^stem\.0\.", "body.stem.conv_xy."),
        (r"^stem\.1\.", "body.stem.bn."),
        (r"^stem\.3\.", "body.stem.conv_t."),
        (r"^stem\.4\.", "body.stem.bn_t."),
        (r"^layer1\.", "body.res2."),
        (r"^layer2\.", "body.res3."),
        (r"^layer3\.", "body.res4."),
        (r"^layer4\.", "body.res5."),
        (r"\.conv1\.0\.", ".main.a."),
        (r"\.conv1\.1\.", ".main.a_bn."),
        (r"\.conv2\.0\.", ".main.b."),
        (r"\.conv2\.1\.", ".main.b_bn."),
        (r"\.main\.([ab])\.0\.", r".main.\1.conv_xy."),
        (r"\.main\.([ab])\.1\.", r".main.\1.bn."),
        (r"\.main\.([ab])\.3\.", r".main.\1.conv_t."),
        (r"\.downsample\.0\.", ".shortcut.conv."),
        (r"\.downsample\.1\.", ".shortcut.bn."),
        (r"^fc\.", "classifier."),
    ),
    # As slowfast/utils/c2_model_loading.py of SlowFast at 287ec00 reads them.
    "caffe2": (
        (r"^t_pool1_subsample_bn_", "body.paths.lateral.stem.bn_"),
        (r"^t_pool1_subsample_", "body.paths.lateral.stem.conv_"),
        (r"^t_res([2-4])_\d+_branch2c_bn_subsample_bn_", r"body.paths.lateral.res\1.bn_"),
        (r"^t_res([2-4])_\d+_branch2c_bn_subsample_", r"body.paths.lateral.res\1.conv_"),
        (r"^t_res_conv1_bn_", "body.paths.fast.stem.bn_"),
        (r"^t_conv1_", "body.paths.fast.stem.conv_"),
        (r"^t_res([2-5])_(\d+)_", r"body.paths.fast.res\1.\2."),
        (r"^res_conv1_bn_", "body.stem.bn_"),
        (r"^conv1_", "body.stem.conv_"),
        (r"^res([2-5])_(\d+)_", r"body.res\1.\2."),
        (r"\.branch1_bn_", ".shortcut.bn_"),
        (r"\.branch1_", ".shortcut.conv_"),
        (r"\.branch2([abc])_", r".main.\1_"),
        (r"^pred_", "classifier_"),
        (r"_[ws]$", ".weight"),
        (r"_b$", ".bias"),
        (r"_rm$", ".running_mean"),
        (r"_riv$", ".running_var"),
    ),
}

# What the models with two paths, and X3D, call the same part.
VARIANTS = (("body.", "body.paths.slow."), ("stem.conv.", "stem.conv_t."))

# Published nets without a model here: a weight of each that no other net has.
STRANGERS = {
    "PyTorchVideo's R(2+1)D-50": (
        *("blocks.1.res_blocks.0.branch2.conv_b.conv_t.weight", (64, 64, 3, 1, 1)),
    ),
    "R3D-18": ("layer2.0.conv1.0.weight", (128, 64, 3, 3, 3)),
    "MC3-18": ("layer2.0.conv1.0.weight", (128, 64, 1, 3, 3)),
}

# PyTorchVideo's X3D has no BatchNorm on the first shortcut of the first stage.
ABSENT_NORM = "body.res2.0.shortcut.bn."


@dataclass(frozen=True)
class Fit:
    """How the keys and shapes of a file fit a model.

    Attributes:
        dialect: in which most keys are keys of the model.
        names: the file's key for each of ours that is there.
        classes: of the file, None if it has no classifier.
        absent: our keys that the dialect may lack, and does.
        misfits: what is wrong; empty if the file fits.
    """

    dialect: str
    names: dict[str, str]
    classes: int | None
    absent: list[str]
    misfits: list[str]


def fit(given: Shapes, wanted: Shapes, new_head: bool = False) -> Fit:
    """Pairs the keys of a file with those of a model, for any number of classes.

    Args:
        new_head: whether to leave out the classifier: the file may have any, or none.
    """
    translations = {dialect: _translated(given, wanted, dialect) for dialect in DIALECTS}
    dialect = max(translations, key=lambda dialect: len(translations[dialect][0]))
    names, unexpected, twice = translations[dialect]
    if not names:
        known = ", ".join(DIALECTS)
        misfit = f"expected keys as in one of {known}, given {some(given)}"
        return Fit(dialect, {}, None, [], [misfit])
    weight = given.get(names.get("classifier.weight"), ())
    classes = weight[0] if weight else None
    if new_head:
        names = {name: key for name, key in names.items() if not _of_head(name)}
        wanted = {name: shape for name, shape in wanted.items() if not _of_head(name)}
    lacking = [name for name in wanted if name not in names]
    absent = _absent(lacking, wanted, dialect)
    misshapen = []
    for name, key in names.items():
        shape = wanted[name]
        if _of_head(name) and classes is not None:
            shape = (classes, *shape[1:])
        if not _same(given[key], shape, name, dialect):
            misshapen.append(f"{key} (expected {shape}, given {given[key]})")
    missing = [name for name in lacking if name not in absent]
    wrong = {"missing": missing, "unexpected": unexpected, "twice": twice}
    wrong["of other shape"] = misshapen
    misfits = [f"{word} {some(keys, 300)}" for word, keys in wrong.items() if keys]
    return Fit(dialect, names, classes, absent, misfits)


def stranger(shapes: Shapes) -> str | None:
    """The net without a model here that has weights of these shapes."""
    matches = [net for net, (key, shape) in STRANGERS.items() if shapes.get(key) == shape]
    return matches[0] if matches else None


def _translated(
    keys: Iterable[str], wanted: Shapes, dialect: str
) -> tuple[dict[str, str], list[str], list[str]]:
    """The given key for each of ours, the keys that are none of ours, and those given twice."""
    names, unexpected, twice = {}, [], []
    # PyTorchVideo also counts blocks without weights: number the others from 1, the stem.
    blocks = {int(match[1]) for key in keys if (match := re.match(r"blocks\.(\d+)\.", key))}
    numbers = {str(block): str(index) for index, block in enumerate(sorted(blocks), start=1)}
    for key in keys:
        name = re.sub(r"(?<=^blocks\.)\d+", lambda match: numbers.get(match[0], match[0]), key)
        name = _rewritten(name, dialect)
        for old, new in VARIANTS:
            if name not in wanted and name.replace(old, new, 1) in wanted:
                name = name.replace(old, new, 1)
        if name not in wanted or (name == key and dialect != "ours"):
            unexpected.append(key)
        elif name in names:
            twice.append(f"{names[name]} and {key} (both {name})")
        else:
            names[name] = key
    return names, unexpected, twice


@functools.lru_cache(maxsize=10_000)
def _rewritten(key: str, dialect: str) -> str:
    for pattern, replacement in DIALECTS[dialect]:
        key = re.sub(pattern, replacement, key)
    return key


def _absent(lacking: list[str], wanted: Shapes, dialect: str) -> list[str]:
    """Those of the lacking keys that the dialect may lack."""
    if dialect == "caffe2":
        return [name for name in lacking if name.endswith(".num_batches_tracked")]
    norm = [name for name in wanted if name.startswith(ABSENT_NORM)]
    is_x3d = "body.linear5.weight" in wanted
    return norm if dialect == "pytorchvideo" and is_x3d and set(norm) <= set(lacking) else []


def _same(given: tuple[int, ...], wanted: tuple[int, ...], name: str, dialect: str) -> bool:
    """Equal. Caffe2 may lack trailing ones, and other projects' classifiers may have some."""
    if dialect == "caffe2" or (name == "classifier.weight" and dialect != "ours"):
        rank = max(len(given), len(wanted))
        given, wanted = given + (1,) * (rank - len(given)), wanted + (1,) * (rank - len(wanted))
    return given == wanted


def _of_head(name: str) -> bool:
    return name.startswith("classifier.")
