"""How far a stream is from what it must equal, and from what it does not equal.

The claims are those of the paper's sections on continual convolutions and on padding; each is
measured as the largest difference of the logits, divided by the largest logit.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..deploy import Runner
from ..nn import ClipNet, Continual, SqueezeExcite, Stream, StreamNet, TwoPath, continual
from ..zoo import create, spec

STREAM, STEADY, NATIVE = "stream = clip", "steady = unpadded clip", "clip = clip network"
DENSE, DENSE_STEADY = "dense[::stride] = stream", "dense steady = unpadded clip"
EQUALITIES = (STREAM, STEADY, NATIVE, DENSE, DENSE_STEADY)  # the others are differences
REVERSED, FIRST, PADDING = "time reversed", "first output", "padding"
GATE, SAMPLING = "gate", "slow-path sampling"
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
EXPORTED = {"float32": 3e-4, "bfloat16": 0.1}  # tolerances of files in another runtime

Sides = Callable[[], tuple[int, Tensor, Tensor]]  # frames used, and what is compared


def calibrate(model: nn.Module, clip: Tensor, seed: int = 0) -> nn.Module:
    """Gives normalisation random scales, and the statistics of one training pass over the clip.

    With default initialisation logits are tiny, and equalities could hardly fail.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
            norm.bias.copy_(torch.rand(norm.bias.shape, generator=generator) - 0.5)
            norm.momentum = None  # a mean over the passes since the reset
            norm.reset_running_stats()
        model.train()
        model(clip)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def twins(
    name: str, window: int | None, size: int, dtype: torch.dtype, seed: int = 0
) -> tuple[ClipNet, StreamNet]:
    """A regular net with calibrated random weights, and the continual net that shares them.

    Args:
        name: of the continual net.
        size: side of the square frames that it is calibrated on.
    """
    record = spec(name)
    torch.manual_seed(seed)
    regular = create(record.weights).to(dtype)
    calibrate(regular, torch.randn(1, 3, record.frames, size, size, dtype=dtype), seed)
    stream = continual(regular, gate=record.gate, window=window or record.window)
    stream.spec = record
    return regular, stream


@torch.inference_mode()
def rows(
    name: str,
    window: int | None = None,
    *,
    size: int,
    dtype: torch.dtype = torch.float64,
    claims: Sequence[str] = (),
    seed: int = 0,
) -> list[dict]:
    """Rows of results/equivalence.csv of one continual net with calibrated random weights.

    `tolerance` is None where no equality is claimed.

    Args:
        name, window: of the continual net.
        size: side of the square frames.
        claims: only these (default: all that apply).
    """
    regular, stream = twins(name, window, size, dtype, seed)
    frames = stream.receptive_field + stream.stride
    clip = torch.randn(1, 3, frames, size, size, dtype=dtype)
    rows = []
    for claim, sides in _claims(regular, stream, clip).items():
        if claims and claim not in claims:
            continue
        used, a, b = sides()
        largest, relative = differences(a, b)
        rows.append(
            {
                "model": name,
                "window": stream.window,
                "claim": claim,
                "dtype": str(dtype).removeprefix("torch."),
                "frames": used,
                "image_size": size,
                "max_abs_diff": largest,
                "max_rel_diff": relative,
                "tolerance": TOLERANCE[dtype] if claim in EQUALITIES else None,
            }
        )
    return rows


def differences(a: Tensor, b: Tensor) -> tuple[float, float]:
    """The largest difference, and the same divided by the largest value of b."""
    largest, scale = float((a - b).abs().max()), float(b.abs().max())
    return largest, largest / max(scale, torch.finfo(b.dtype).tiny)


def _claims(regular: ClipNet, stream: StreamNet, clip: Tensor) -> dict[str, Sides]:
    """What applies to a net, by claim."""
    frames, window, stride = clip.shape[2], stream.window, stream.stride
    column = (frames - 1 - stream.warmup) // stride  # of the last prediction
    first, last = stream.warmup + 1, stream.warmup + 1 + column * stride  # frames, from 1
    live, rest = streamed(stream, clip, 1)
    steady, native = live[:, :, column], clip[:, :, :window]

    def unpadded(end: int) -> Tensor:
        return stream(clip[:, :, end - stream.receptive_field : end], pad=False)

    def columns() -> Tensor:
        """All predictions of the clip call; the last one is stream(clip)."""
        return stream.classifier(stream.body(clip).flatten(2))

    claims: dict[str, Sides] = {
        STREAM: lambda: (frames, torch.cat([live, rest], 2), columns()),
        STEADY: lambda: (frames, steady, unpadded(last)),
        FIRST: lambda: (first, live[:, :, 0], stream(clip[:, :, :first])),
        PADDING: lambda: (frames, stream(clip[:, :, last - window : last]), steady),
        REVERSED: lambda: (window, stream(native.flip(2)), stream(native)),
    }
    if window == stream.spec.frames:
        claims[NATIVE] = lambda: (window, stream(native), _as_streamed(regular)(native))
        for claim, kind in ((GATE, SqueezeExcite), (SAMPLING, TwoPath)):
            if any(type(module) is kind for module in regular.modules()):
                claims[claim] = lambda: (window, stream(native), regular(native))
    if stride > 1:
        dense = continual(stream, dense=True)
        chosen = slice(0, 1 + column * stride, stride)
        claims[DENSE] = lambda: (
            frames,
            streamed(dense, clip, 8)[0][:, :, chosen],
            streamed(stream, clip, 8)[0],
        )
        # At the last frame but one, the strided stream has no prediction.
        claims[DENSE_STEADY] = lambda: (
            frames,
            streamed(dense, clip, 8)[0][:, :, -2],
            unpadded(frames - 1),
        )
    return claims


def _as_streamed(regular: ClipNet) -> ClipNet:
    """The regular net with gates over frames and every alpha-th slow frame."""
    net = copy.deepcopy(regular)
    for module in net.modules():
        if isinstance(module, SqueezeExcite):
            module.gate = "frame"
        if isinstance(module, TwoPath):
            module.sampling = "stride"
    return net


def streamed(net: Continual, clip: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """All outputs (B, C, T', ...) of a stream over the clip, and those that its end adds."""
    state, outputs = None, []
    for part in clip.split(chunk, 2):
        y, state = net.steps(part, state)
        outputs += [] if y is None else [y]
    rest, _ = net.flush(state)
    live = torch.cat(outputs, 2)
    return live, live[:, :, :0] if rest is None else rest


@torch.inference_mode()
def error_over_time(stream: StreamNet, clip: Tensor) -> list[dict]:
    """A stream that begins in the middle of a video, against one that has seen all of it.

    From frame RF on, both depend on the same frames, and the difference is rounding alone.

    Args:
        clip: (1, 3, T, H, W); the stream begins one receptive field (rounded up to a multiple of
            the stride) after its first frame.

    Returns:
        Per prediction: frame (from 1 at the reset) and max_rel_diff of the logits.
    """
    before = -(-stream.receptive_field // stream.stride) * stream.stride
    seen, _ = streamed(stream, clip, 8)
    fresh, _ = streamed(stream, clip[:, :, before:], 8)
    seen = seen[:, :, -fresh.shape[2] :]
    errors = ((fresh - seen).abs().amax((0, 1)) / seen.abs().max()).tolist()
    frames = range(stream.warmup + 1, clip.shape[2] + 1, stream.stride)
    points = zip(frames, errors, strict=False)
    return [{"frame": frame, "max_rel_diff": error} for frame, error in points]


@torch.no_grad()
def difference(model: ClipNet, runner: Runner, seed: int = 0) -> float:
    """The largest difference of their logits on noise, divided by the largest logit.

    For a continual net over the warm-up and a few predictions, at all phases.

    Raises:
        ValueError: if they predict at different frames.
    """
    frames, shape = 1, runner.shape
    if isinstance(model, StreamNet):
        frames = model.warmup + 2 * model.stride
        model, runner = Stream(model), Stream(runner)
    errors, generator = [], torch.Generator().manual_seed(seed)
    for _ in range(frames):
        x = torch.randn(shape, generator=generator)
        expected, given = model(x), runner(x)
        if (given is None) != (expected is None):
            raise ValueError("expected predictions at the same frames")
        errors += [] if given is None else [differences(given, expected)[1]]
    return max(errors)
