"""The one table of models: architecture, input pipeline, stream options, published figures."""

import difflib
from dataclasses import dataclass, replace

PAPER = "https://arxiv.org/abs/2106.00050"
SLOWFAST_CODE = "https://github.com/facebookresearch/SlowFast"
PYTORCHVIDEO_CODE = "https://github.com/facebookresearch/pytorchvideo"
TORCHVISION_CODE = "https://github.com/pytorch/vision"
FILES = "https://dl.fbaipublicfiles.com"


@dataclass(frozen=True)
class Stage:
    """A stage of X3D: `blocks` blocks, the first with spatial stride 2."""

    width: int
    inner: int
    squeeze: int
    blocks: int


@dataclass(frozen=True)
class X3D:
    """Hyper-parameters of X3D (https://arxiv.org/abs/2004.04730).

    Attributes:
        stem: channels behind the first convolutions, which span 5 frames.
        stages: res2 to res5.
        conv5: channels before the pool.
        features: channels before the classifier.
    """

    stem: int
    stages: tuple[Stage, ...]
    conv5: int
    features: int


@dataclass(frozen=True)
class ResNet:
    """Hyper-parameters of a ResNet of bottleneck blocks with time in some of its kernels
    (Slow and SlowFast: https://arxiv.org/abs/1812.03982; I3D: https://arxiv.org/abs/1705.07750).

    Attributes:
        stem_kernel: frames that the first convolution spans.
        kernels: frames that the first convolution of each block spans, stage by stage.
        width: channels of the stem and inside the blocks of the first stage; doubles per stage.
        expansion: output channels of a block, divided by those inside.
        time_pool: temporal size and stride of the max-pool behind the first stage. Published Slow
            and SlowFast have one of size 1, the identity, which is left out here.
    """

    stem_kernel: int
    kernels: tuple[tuple[int, ...], ...]
    width: int = 64
    expansion: int = 4
    time_pool: int = 1


@dataclass(frozen=True)
class SlowFast:
    """Two ResNets over the same frames (https://arxiv.org/abs/1812.03982).

    Attributes:
        alpha: frames of the fast path per frame of the slow path.
        fusion_kernel: frames that the convolutions from fast to slow span.
        fusion_ratio: their output channels, divided by their input channels.
    """

    slow: ResNet
    fast: ResNet
    alpha: int
    fusion_kernel: int
    fusion_ratio: int = 2


@dataclass(frozen=True)
class R2Plus1D:
    """Hyper-parameters of R(2+1)D (https://arxiv.org/abs/1711.11248).

    Attributes:
        stem: channels between the spatial and the temporal half of the first convolution.
        widths: channels of the stages; all but the first have stride 2 in time and space.
        blocks: per stage.
    """

    stem: int
    widths: tuple[int, ...]
    blocks: int = 2


@dataclass(frozen=True)
class Published:
    """GFLOPs in the paper's benchmark table: of a clip of `frames`, or a stream at `window`."""

    gflops: float
    frames: int | None = None
    window: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Published weights of a network.

    Attributes:
        training_data: the name that loads them.
        channel_order: of their input; image size, mean and std are the model's.
        scores: what turns logits into scores, "sigmoid" where a video has several labels.
        source: the repository that publishes them.
        licence: of that repository.
        sha256: of the file, or its first digits, where the authors publish it.
        mebibytes: likewise.
    """

    training_data: str
    url: str
    num_classes: int = 400
    channel_order: str = "rgb"
    scores: str = "softmax"
    source: str = SLOWFAST_CODE
    licence: str = "Apache-2.0"
    sha256: str = ""
    mebibytes: float | None = None


@dataclass(frozen=True)
class Spec:
    """Everything that is known about a model.

    Attributes:
        frames, frame_interval: of a clip; the interval is in raw frames at 30 fps.
        image_size: side of the square frames, in pixels.
        n_params: parameters with `num_classes` classes.
        mean, std, channel_order: of the input, after division by 255.
        continual: whether it runs frame by frame; then `window` is the native span of the running
            average in frames.
        paper, source: of the clip net and its authors' code.
        checkpoints: published weights, the same for a continual net and its twin.
    """

    name: str
    architecture: X3D | ResNet | SlowFast | R2Plus1D
    frames: int
    frame_interval: int
    image_size: int
    n_params: int
    num_classes: int = 400
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    channel_order: str = "rgb"
    continual: bool = False
    window: int | None = None
    paper: str = ""
    source: str = SLOWFAST_CODE
    checkpoints: tuple[Checkpoint, ...] = ()
    published: tuple[Published, ...] = ()

    @property
    def native_fps(self) -> float:
        """Frames per second in training."""
        return 30 / self.frame_interval

    @property
    def weights(self) -> str:
        """The model that has the same weights: a continual net's regular twin, else itself."""
        return self.name.removeprefix("co") if self.continual else self.name

    @property
    def gate(self) -> str | None:
        """What the squeeze-and-excitation averages over, None without one."""
        if not isinstance(self.architecture, X3D):
            return None
        return "frame" if self.continual else "clip"

    def checkpoint(self, training_data: str) -> Checkpoint | None:
        """The published weights of that name, if there are any."""
        return next((c for c in self.checkpoints if c.training_data == training_data), None)


def _x3d(blocks: tuple[int, int, int, int]) -> X3D:
    widths, inner, squeeze = (24, 48, 96, 192), (54, 108, 216, 432), (8, 8, 16, 32)
    stages = zip(widths, inner, squeeze, blocks, strict=True)
    return X3D(24, tuple(Stage(*stage) for stage in stages), 432, 2048)


def _mini(name: str, architecture: X3D | ResNet | SlowFast | R2Plus1D, n_params: int) -> Spec:
    source = "notebooks/A1_train_mini.ipynb"
    return Spec(name, architecture, 16, 2, 48, n_params, num_classes=12, source=source)


def _net(name, architecture, frames, interval, pixels, n_params, gflops, paper, url) -> Spec:
    return Spec(
        name,
        architecture,
        frames,
        interval,
        pixels,
        n_params,
        paper=paper,
        checkpoints=(Checkpoint("kinetics400", url),),
        published=(Published(gflops, frames),),
    )


_X3D, _X3D_L = _x3d((3, 5, 11, 7)), _x3d((5, 10, 25, 15))
_SLOW = ResNet(1, ((1,) * 3, (1,) * 4, (3,) * 6, (3,) * 3))
_I3D = ResNet(5, ((3,) * 3, (3, 1) * 2, (3, 1) * 3, (1, 3, 1)), time_pool=2)
_FAST = ResNet(5, ((3,) * 3, (3,) * 4, (3,) * 6, (3,) * 3), width=8)
_SLOWFAST_4X16 = SlowFast(_SLOW, _FAST, alpha=8, fusion_kernel=5)
_SLOWFAST_8X8 = SlowFast(_SLOW, _FAST, alpha=4, fusion_kernel=7)

_X3D_MINI = X3D(16, (Stage(16, 36, 8, 1), Stage(24, 54, 8, 2), Stage(40, 90, 8, 3)), 90, 128)
_SLOW_MINI = ResNet(1, ((1,), (3,), (3, 3)), width=8)
_I3D_MINI = ResNet(5, ((3,), (3, 1), (3, 1)), width=8, time_pool=2)
_SLOWFAST_MINI = SlowFast(
    ResNet(1, ((1,), (1,), (3,)), width=6), ResNet(5, ((3,), (3,), (3,)), width=4), 4, 5
)

_X3D_PAPER = "https://arxiv.org/abs/2004.04730"
_SLOWFAST_PAPER = "https://arxiv.org/abs/1812.03982"
_I3D_PAPER = "https://arxiv.org/abs/1705.07750"
_X3D_AT = f"{FILES}/pyslowfast/x3d_models"
_RESNETS_AT = f"{FILES}/pyslowfast/model_zoo/kinetics400"
_SLOW_AT = f"{FILES}/pytorchvideo/model_zoo"
_SLOW_WEIGHTS = (
    Checkpoint("kinetics400", f"{_SLOW_AT}/kinetics/SLOW_8x8_R50.pyth", source=PYTORCHVIDEO_CODE),
    Checkpoint(
        "charades",
        f"{_SLOW_AT}/charades/SLOW_8x8_R50.pyth",
        num_classes=157,
        channel_order="bgr",
        scores="sigmoid",
        source=PYTORCHVIDEO_CODE,
    ),
)
_R2PLUS1D_WEIGHTS = Checkpoint(
    "kinetics400",
    "https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
    source=TORCHVISION_CODE,
    licence="BSD-3-Clause",
    sha256="91a641e6",
    mebibytes=120.318,
)

# fmt: off
_CLIP_NETS = (
    # frames, interval, pixels, parameters, GFLOPs
    _net("x3d_xs", _X3D, 4, 12, 160, 3_794_322, 0.64, _X3D_PAPER, f"{_X3D_AT}/x3d_xs.pyth"),
    _net("x3d_s", _X3D, 13, 6, 160, 3_794_322, 2.06, _X3D_PAPER, f"{_X3D_AT}/x3d_s.pyth"),
    _net("x3d_m", _X3D, 16, 5, 224, 3_794_322, 4.97, _X3D_PAPER, f"{_X3D_AT}/x3d_m.pyth"),
    _net("x3d_l", _X3D_L, 16, 5, 312, 6_153_432, 19.17, _X3D_PAPER, f"{_X3D_AT}/x3d_l.pyth"),
    replace(
        _net("slow_8x8_r50", _SLOW, 8, 8, 256, 32_454_096, 54.87, _SLOWFAST_PAPER, ""),
        checkpoints=_SLOW_WEIGHTS,
    ),
    _net("i3d_8x8_r50", _I3D, 8, 8, 224, 28_043_472, 28.61, _I3D_PAPER,
         f"{_RESNETS_AT}/I3D_8x8_R50.pkl"),
    _net("slowfast_4x16_r50", _SLOWFAST_4X16, 32, 2, 256, 34_480_216, 36.46, _SLOWFAST_PAPER,
         f"{_RESNETS_AT}/SLOWFAST_4x16_R50.pkl"),
    _net("slowfast_8x8_r50", _SLOWFAST_8X8, 32, 2, 256, 34_566_488, 66.25, _SLOWFAST_PAPER,
         f"{_RESNETS_AT}/SLOWFAST_8x8_R50.pkl"),
    Spec(
        "r2plus1d_18", R2Plus1D(45, (64, 128, 256, 512)), 16, 2, 112, 31_505_325,
        mean=(0.43216, 0.394666, 0.37645),
        std=(0.22803, 0.22145, 0.216989),
        paper="https://arxiv.org/abs/1711.11248",
        source=TORCHVISION_CODE,
        checkpoints=(_R2PLUS1D_WEIGHTS,),
        published=(Published(40.71, 16), Published(20.35, 8)),
    ),
    _mini("x3d_mini", _X3D_MINI, 63_040),
    _mini("slow_mini", _SLOW_MINI, 65_556),
    _mini("i3d_mini", _I3D_MINI, 66_740),
    _mini("slowfast_mini", _SLOWFAST_MINI, 61_726),
    _mini("r2plus1d_mini", R2Plus1D(8, (8, 16, 32), 1), 50_928),
)
# fmt: on
_STREAM_GFLOPS = {  # at both published windows
    "x3d_s": (0.17, (13, 64)),
    "x3d_m": (0.33, (16, 64)),
    "x3d_l": (1.25, (16, 64)),
    "slow_8x8_r50": (6.90, (8, 64)),
    "i3d_8x8_r50": (5.68, (8, 64)),
}


def _continual(regular: Spec) -> Spec:
    gflops, windows = _STREAM_GFLOPS.get(regular.name, (0, ()))
    return replace(
        regular,
        name=f"co{regular.name}",
        continual=True,
        window=regular.frames,
        published=tuple(Published(gflops, window=window) for window in windows),
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
