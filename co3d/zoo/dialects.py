"""The names that other projects give to the same weights: one table of rules for each of them.

A key is rewritten by the rules of its dialect in their order, each wherever it matches; `{a|b}`
stands for the one of both that the model has, such as a path of SlowFast or none. The rules are
forgiving, `fit` is not: every key must end as another one of ours, with its shape, and ours must
all be there.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .files import some

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Dialect:
    """How a project names its weights.

    Attributes:
        mark: what its keys begin with.
        rules: patterns and replacements.
    """

    name: str
    mark: str
    rules: tuple[tuple[str, str], ...]


OURS = Dialect("ours", r"body\.|classifier\.", ((r"^(?=body\.|classifier\.)", ""),))

# https://github.com/facebookresearch/SlowFast, slowfast/models at 287ec00
PYSLOWFAST = Dialect(
    "pyslowfast",
    r"s[1-5](_fuse)?\.|head\.",
    (
        (r"^s1_fuse\.", "body.paths.lateral.stem."),
        (r"^s([2-4])_fuse\.", r"body.paths.lateral.res\1."),
        (r"\.conv_f2s\.", ".conv."),
        (r"^s1\.pathway0_stem\.conv\.", "body.{paths.slow.|}stem.{conv|conv_t}."),
        (r"^s1\.pathway0_stem\.", "body.{paths.slow.|}stem."),
        (r"^s1\.pathway1_stem\.", "body.paths.fast.stem."),
        (r"^s([2-5])\.pathway0_res(\d+)\.", r"body.{paths.slow.|}res\1.\2."),
        (r"^s([2-5])\.pathway1_res(\d+)\.", r"body.paths.fast.res\1.\2."),
        (r"\.branch2\.", ".main."),
        (r"\.branch1\.", ".shortcut.conv."),
        (r"\.branch1_bn\.", ".shortcut.bn."),
        (r"^head\.conv_5\.", "body.conv5.conv."),
        (r"^head\.conv_5_bn\.", "body.conv5.bn."),
        (r"^head\.lin_5\.", "body.linear5."),
        (r"^head\.projection\.", "classifier."),
    ),
)

# https://github.com/facebookresearch/pytorchvideo, models/hub at 0.1.5. Blocks without weights
# count there (pools), so I3D and SlowFast have other numbers; `_numbered` makes the stem 1 and the
# stages 2 to 5 in all. In X3D's stem, conv_t is the spatial and conv_xy the temporal convolution.
PYTORCHVIDEO = Dialect(
    "pytorchvideo",
    r"blocks\.",
    (
        (r"^blocks\.1\.multipathway_fusion\.", "body.paths.lateral.stem."),
        (r"^blocks\.([2-4])\.multipathway_fusion\.", r"body.paths.lateral.res\1."),
        (r"\.conv_fast_to_slow\.", ".conv."),
        (r"^blocks\.1\.multipathway_blocks\.1\.", "body.paths.fast.stem."),
        (r"^blocks\.([2-5])\.multipathway_blocks\.1\.", r"body.paths.fast.res\1."),
        (r"^blocks\.1\.(multipathway_blocks\.0\.)?", "body.{paths.slow.|}stem."),
        (r"^blocks\.([2-5])\.(multipathway_blocks\.0\.)?", r"body.{paths.slow.|}res\1."),
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
)

# https://github.com/pytorch/vision, torchvision/models/video/resnet.py
TORCHVISION = Dialect(
    "torchvision",
    r"stem\.|layer[1-4]\.|fc\.",
    (
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
)

# As slowfast/utils/c2_model_loading.py of SlowFast at 287ec00 reads them.
CAFFE2 = Dialect(
    "caffe2",
    r"(t_)?(res_)?conv1_|(t_)?res[2-5]_|t_pool1_|pred_",
    (
        (r"^t_pool1_subsample_bn_", "body.paths.lateral.stem.bn_"),
        (r"^t_pool1_subsample_", "body.paths.lateral.stem.conv_"),
        (r"^t_res([2-4])_\d+_branch2c_bn_subsample_bn_", r"body.paths.lateral.res\1.bn_"),
        (r"^t_res([2-4])_\d+_branch2c_bn_subsample_", r"body.paths.lateral.res\1.conv_"),
        (r"^t_res_conv1_bn_", "body.paths.fast.stem.bn_"),
        (r"^t_conv1_", "body.paths.fast.stem.conv_"),
        (r"^t_res([2-5])_(\d+)_", r"body.paths.fast.res\1.\2."),
        (r"^res_conv1_bn_", "body.{paths.slow.|}stem.bn_"),
        (r"^conv1_", "body.{paths.slow.|}stem.conv_"),
        (r"^res([2-5])_(\d+)_", r"body.{paths.slow.|}res\1.\2."),
        (r"\.branch1_bn_", ".shortcut.bn_"),
        (r"\.branch1_", ".shortcut.conv_"),
        (r"\.branch2([abc])_", r".main.\1_"),
        (r"^pred_", "classifier_"),
        (r"_[ws]$", ".weight"),
        (r"_b$", ".bias"),
        (r"_rm$", ".running_mean"),
        (r"_riv$", ".running_var"),
    ),
)

DIALECTS = (OURS, PYSLOWFAST, PYTORCHVIDEO, TORCHVISION, CAFFE2)

# Published nets that have no model here, by what no net that has one shares.
STRANGERS = {
    "PyTorchVideo's R(2+1)D-50": {
        "blocks.1.res_blocks.0.branch2.conv_b.conv_t.weight": (64, 64, 3, 1, 1)
    },
    "R3D-18": {"layer2.0.conv1.0.weight": (128, 64, 3, 3, 3)},
    "MC3-18": {"layer2.0.conv1.0.weight": (128, 64, 1, 3, 3)},
}

# PyTorchVideo's X3D has no BatchNorm on the first shortcut of the first stage.
ABSENT_NORM = "body.res2.0.shortcut.bn."


def detect(keys: Iterable[str]) -> Dialect:
    """The dialect that most of the keys are in.

    Raises:
        ValueError: if none is in any.
    """
    keys = list(keys)
    counts = {
        dialect: sum(bool(re.match(dialect.mark, key)) for key in keys) for dialect in DIALECTS
    }
    dialect = max(DIALECTS, key=counts.__getitem__)
    if not counts[dialect]:
        names = ", ".join(dialect.name for dialect in DIALECTS)
        raise ValueError(f"expected keys as in one of {names}, given {some(keys)}")
    return dialect


def stranger(shapes: Shapes) -> str | None:
    """The net without a model here that weights of these shapes are of, if they are."""
    for name, signs in STRANGERS.items():
        if signs.items() <= shapes.items():
            return name
    return None


@dataclass(frozen=True)
class Fit:
    """How a file's keys and shapes fit those of a model.

    Attributes:
        names: their key for each of ours.
        classes: of the file, None if it has no classifier.
        absent: keys of ours that the dialect may lack, and does.
        misfits: what is wrong, nothing if it fits.
    """

    names: dict[str, str]
    classes: int | None
    absent: list[str]
    misfits: list[str]


def fit(given: Shapes, wanted: Shapes, dialect: Dialect, new_head: bool = False) -> Fit:
    """Pairs the keys of a file in a dialect with those of a model, for any number of classes.

    Args:
        new_head: whether the classifier of the file may be any, or none.
    """
    names, unexpected, doubled = {}, [], []
    for key, numbered in _numbered(given).items():
        name = _renamed(numbered, dialect, wanted)
        if name is None:
            unexpected.append(key)
        elif name in names:
            doubled.append(f"{names[name]} and {key} (both {name})")
        else:
            names[name] = key
    lacking = [key for key in wanted if key not in names and not (new_head and _of_head(key))]
    absent, missing = _absences(lacking, dialect, wanted)
    classes, misshapen = None, []
    if "classifier.weight" in names:
        classes = next(iter(given[names["classifier.weight"]]), None)
    for name, key in names.items():
        shape = wanted[name]
        if _of_head(name) and classes is not None:
            shape = (classes, *shape[1:])
        if not _same(given[key], shape, name, dialect) and not (new_head and _of_head(name)):
            misshapen.append(f"{key} (expected {shape}, given {given[key]})")
    wrong = {"missing": missing, "unexpected": unexpected, "twice": doubled}
    wrong["of other shape"] = misshapen
    misfits = [f"{word} {some(keys, 300)}" for word, keys in wrong.items() if keys]
    return Fit(names, classes, absent, misfits)


def _numbered(keys: Iterable[str]) -> dict[str, str]:
    """Each key, with PyTorchVideo's blocks counted from 1 without those that have no weights."""
    pattern = re.compile(r"^blocks\.([0-9]{1,3})\.")
    found = {key: int(match[1]) for key in keys if (match := pattern.match(key))}
    rank = {number: index for index, number in enumerate(sorted(set(found.values())), start=1)}
    return {
        key: pattern.sub(f"blocks.{rank[found[key]]}.", key) if key in found else key
        for key in keys
    }


def _renamed(key: str, dialect: Dialect, wanted: Shapes) -> str | None:
    """Our name, if the model has it."""
    if not re.fullmatch(r"[\w.]{1,200}", key):
        return None
    changes = 0
    for pattern, replacement in dialect.rules:
        key, count = re.subn(pattern, replacement, key)
        changes += count
    choices = [part.split("|") for part in re.split(r"[{}]", key)]
    options = ["".join(parts) for parts in itertools.product(*choices)] if changes else []
    return next((option for option in options if option in wanted), None)


def _absences(lacking: list[str], dialect: Dialect, wanted: Shapes) -> tuple[list[str], list[str]]:
    """Those that the dialect may lack, and those that it may not."""
    absent = set()
    if dialect is CAFFE2:
        absent = {key for key in lacking if key.endswith(".num_batches_tracked")}
    norm = {key for key in wanted if key.startswith(ABSENT_NORM)}
    if dialect is PYTORCHVIDEO and "body.linear5.weight" in wanted and norm <= set(lacking):
        absent |= norm
    return sorted(absent), [key for key in lacking if key not in absent]


def _of_head(name: str) -> bool:
    return name.startswith("classifier.")


def _same(given: tuple[int, ...], wanted: tuple[int, ...], name: str, dialect: Dialect) -> bool:
    """Equal, but for ones behind the last axis in Caffe2 and of classifiers, which others may
    have as a convolution."""
    if dialect is OURS or not (dialect is CAFFE2 or name == "classifier.weight"):
        return given == wanted
    rank = max(len(given), len(wanted))
    return given + (1,) * (rank - len(given)) == wanted + (1,) * (rank - len(wanted))
