"""The one table of models: architecture, input pipeline, stream options, published figures."""

import difflib
from dataclasses import dataclass, replace

PAPER = "https://arxiv.org/abs/2106.00050"
SLOWFAST_CODE = "https://github.com/facebookresearch/SlowFast"


@dataclass(frozen=True)
class Stage:
    """A stage of X3D: `blocks` blocks, the first of spatial stride 2."""

    width: int
    inner: int
    squeeze: int
    blocks: int


@dataclass(frozen=True)
class X3D:
    """Hyper-parameters of X3D (https://arxiv.org/abs/2004.04730).

    Attributes:
        stem: channels after the first convolutions, which reach over 5 frames.
        stages: res2 to res5.
        conv5: channels before the pool, the inner width of the last stage.
        features: channels before the classifier.
    """

    stem: int
    stages: tuple[Stage, ...]
    conv5: int
    features: int


@dataclass(frozen=True)
class Published:
    """What the paper's benchmark table says of a model (window given for continual nets)."""

    window: int | None
    top1_pct: float
    gflops: float


@dataclass(frozen=True)
class Spec:
    """Everything that is known of a model.

    Attributes:
        frames, frame_interval: of a clip; the interval is in raw frames at 30 fps.
        image_size: side of the square frames, in pixels.
        mean, std, channel_order: of the input, after division by 255.
        continual: whether it runs frame by frame; then `window` is the native span of the running
            average in frames, and `gate` what its squeeze-and-excitation averages over.
        weights: name of the model whose weights it uses (its regular twin's for a continual net).
        n_params: parameters with `num_classes` classes.
        licence: of the published weights.
    """

    name: str
    architecture: X3D
    frames: int
    frame_interval: int
    image_size: int
    num_classes: int
    n_params: int
    weights: str
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    channel_order: str = "rgb"
    continual: bool = False
    window: int | None = None
    gate: str = "clip"
    source: str = SLOWFAST_CODE
    licence: str = "Apache-2.0"
    published: tuple[Published, ...] = ()

    @property
    def native_fps(self) -> float:
        """Frames per second that the weights were trained at."""
        return 30 / self.frame_interval


def _x3d(blocks: tuple[int, int, int, int]) -> X3D:
    widths, inner, squeeze = (24, 48, 96, 192), (54, 108, 216, 432), (8, 8, 16, 32)
    stages = zip(widths, inner, squeeze, blocks, strict=True)
    return X3D(24, tuple(Stage(*stage) for stage in stages), 432, 2048)


_SMALL, _LARGE = _x3d((3, 5, 11, 7)), _x3d((5, 10, 25, 15))
_MINI = X3D(16, (Stage(16, 36, 8, 1), Stage(24, 54, 8, 2), Stage(40, 90, 8, 3)), 90, 128)


def _clip_net(name, architecture, frames, interval, image_size, params, top1, gflops) -> Spec:
    published = (Published(None, top1, gflops),)
    return Spec(
        *(name, architecture, frames, interval, image_size, 400, params, name),
        published=published,
    )


_CLIP_NETS = (
    _clip_net("x3d_xs", _SMALL, 4, 12, 160, 3_794_322, 59.37, 0.64),
    _clip_net("x3d_s", _SMALL, 13, 6, 160, 3_794_322, 64.71, 2.06),
    _clip_net("x3d_m", _SMALL, 16, 5, 224, 3_794_322, 67.24, 4.97),
    _clip_net("x3d_l", _LARGE, 16, 5, 312, 6_153_432, 69.29, 19.17),
    Spec(
        *("x3d_mini", _MINI, 16, 2, 48, 12, 63_040, "x3d_mini"),
        source="notebooks/A1_train_mini.ipynb",
    ),
)
_CO_PUBLISHED = {
    "x3d_s": (Published(13, 60.18, 0.17), Published(64, 67.33, 0.17)),
    "x3d_m": (Published(16, 62.80, 0.33), Published(64, 71.03, 0.33)),
    "x3d_l": (Published(16, 63.03, 1.25), Published(64, 71.61, 1.25)),
}


def _continual(regular: Spec) -> Spec:
    return replace(
        regular,
        name=f"co{regular.name}",
        continual=True,
        window=regular.frames,
        gate="frame",
        published=_CO_PUBLISHED.get(regular.name, ()),
    )


SPECS = {spec.name: spec for spec in (*_CLIP_NETS, *map(_continual, _CLIP_NETS))}


def list_models() -> list[str]:
    """The names of all models, sorted."""
    return sorted(SPECS)


def spec(name: str) -> Spec:
    """The record of a model.

    Raises:
        ValueError: for an unknown name, with the nearest known ones.
    """
    if name not in SPECS:
        near = difflib.get_close_matches(str(name), SPECS, n=3, cutoff=0.3) or list_models()
        raise ValueError(f"expected a model such as {', '.join(near)}, given {name!r}")
    return SPECS[name]
