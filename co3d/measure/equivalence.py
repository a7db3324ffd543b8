"""How far a stream is from what it must equal, and from what it does not equal.

The claims are those of the paper's sections on continual convolutions and on padding; each is
measured as the largest difference of the logits, divided by the largest logit.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..deploy import Runner
from ..nn import ClipNet, SqueezeExcite, Stream, StreamNet, TwoPath, continual
from ..zoo import create, spec

# Equalities, and then differences; what each one compares is in `rows`.
STREAM, STEADY, NATIVE = "stream = clip", "steady = unpadded clip", "clip = clip network"
DENSE, DENSE_STEADY = "dense[::stride] = stream", "dense steady = unpadded clip"
REVERSED, FIRST, PADDING = "time reversed", "first output", "padding"
GATE, SAMPLING = "gate", "slow-path sampling"
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
EXPORTED = {"float32": 3e-4, "bfloat16": 0.1}  # tolerances of files in another runtime


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

    Args:
        name, window: of the continual net.
        size: side of the square frames.
        claims: only these (default: all that apply).

    Returns:
        A row per claim; `tolerance` is None where no equality is claimed.
    """
    regular, stream = twins(name, window, size, dtype, seed)
    frames = stream.receptive_field + stream.stride
    clip = torch.randn(1, 3, frames, size, size, dtype=dtype)
    found = []
    for claim, equal, used, a, b in _compared(regular, stream, clip, claims):
        difference, scale = float((a - b).abs().max()), float(b.abs().max())
        found.append(
            {
                "model": name,
                "window": stream.window,
                "claim": claim,
                "dtype": str(dtype).removeprefix("torch."),
                "frames": used,
                "image_size": size,
                "max_abs_diff": difference,
                "max_rel_diff": difference / scale,
                "tolerance": TOLERANCE[dtype] if equal else None,
            }
        )
    return found


def _compared(
    regular: ClipNet, stream: StreamNet, clip: Tensor, claims: Sequence[str]
) -> Iterator[tuple[str, bool, int, Tensor, Tensor]]:
    """Claim, whether it is an equality, frames used, and the two sides of it."""
    frames, field = clip.shape[2], stream.receptive_field

    def wanted(*names: str) -> bool:
        return not claims or any(name in claims for name in names)

    if wanted(STREAM, STEADY, FIRST, PADDING):
        live, rest = _streamed(stream, clip, 1)
        columns = stream.classifier(stream.body(clip).flatten(2))  # the last one is stream(clip)
        yield STREAM, True, frames, torch.cat([live, rest], 2), columns
    if wanted(STEADY, PADDING):
        column, last = _last_steady(stream, frames)
        unpadded = stream(clip[:, :, last - field : last], pad=False)
        yield STEADY, True, frames, live[:, :, column], unpadded
    if wanted(FIRST):
        seen = stream.warmup + 1
        yield FIRST, False, seen, live[:, :, 0], stream(clip[:, :, :seen])
    if wanted(PADDING):
        padded = stream(clip[:, :, last - stream.window : last])
        yield PADDING, False, frames, padded, live[:, :, column]
    if wanted(REVERSED):
        native = clip[:, :, : stream.window]
        yield REVERSED, False, stream.window, stream(native.flip(2)), stream(native)
    if stream.window == stream.spec.frames:
        yield from _against_regular(regular, stream, clip[:, :, : stream.window], wanted)
    if stream.stride > 1 and wanted(DENSE, DENSE_STEADY):
        yield from _against_dense(stream, clip)


def _against_regular(regular: ClipNet, stream: StreamNet, clip: Tensor, wanted) -> Iterator[tuple]:
    """The clip call against the regular net: as it is, and with the stream's choices in it."""
    frames = clip.shape[2]
    if wanted(NATIVE):
        yield NATIVE, True, frames, stream(clip), _as_streamed(regular)(clip)
    kinds = {type(module) for module in regular.modules()}
    for claim, kind in ((GATE, SqueezeExcite), (SAMPLING, TwoPath)):
        if kind in kinds and wanted(claim):
            yield claim, False, frames, stream(clip), regular(clip)


def _as_streamed(regular: ClipNet) -> ClipNet:
    """The regular net with gates over frames and every alpha-th slow frame."""
    net = copy.deepcopy(regular)
    for module in net.modules():
        if isinstance(module, SqueezeExcite):
            module.gate = "frame"
        if isinstance(module, TwoPath):
            module.sampling = "stride"
    return net


def _against_dense(stream: StreamNet, clip: Tensor) -> Iterator[tuple]:
    """A dense twin: its every stride-th prediction, and one that lies between."""
    dense, frames, field = continual(stream, dense=True), clip.shape[2], stream.receptive_field
    strided, _ = _streamed(stream, clip, 8)
    live, _ = _streamed(dense, clip, 8)
    columns = live[:, :, :: stream.stride][:, :, : strided.shape[2]]
    yield DENSE, True, frames, columns, strided
    last = frames - 1  # the strided stream predicts one frame later or earlier
    column = last - 1 - dense.warmup
    unpadded = stream(clip[:, :, last - field : last], pad=False)
    yield DENSE_STEADY, True, frames, live[:, :, column], unpadded


def _streamed(stream: StreamNet, clip: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """All logits (B, classes, T') of a stream over the clip, and those that its end adds."""
    state, live = None, []
    for part in clip.split(chunk, 2):
        logits, state = stream.steps(part, state)
        live += [] if logits is None else [logits]
    rest, _ = stream.flush(state)
    return torch.cat(live, 2), live[0][:, :, :0] if rest is None else rest


def _last_steady(stream: StreamNet, frames: int) -> tuple[int, int]:
    """The last prediction of a stream over so many frames: its column, and its frame from 1."""
    column = (frames - 1 - stream.warmup) // stream.stride
    return column, stream.warmup + column * stream.stride + 1


@torch.inference_mode()
def error_over_time(stream: StreamNet, clip: Tensor) -> list[dict]:
    """A stream that begins in the middle of a video, against one that has seen all of it.

    From frame RF on, both depend on the same frames, and the difference is rounding alone.

    Args:
        clip: (1, 3, T, H, W); the stream begins a receptive field (rounded up to a multiple of the
            stride) behind its first frame.

    Returns:
        Per prediction: frame (from 1 at the reset) and max_rel_diff of the logits.
    """
    before = -(-stream.receptive_field // stream.stride) * stream.stride
    seen, _ = _streamed(stream, clip, 8)
    fresh, _ = _streamed(stream, clip[:, :, before:], 8)
    seen = seen[:, :, -fresh.shape[2] :]
    errors = ((fresh - seen).abs().amax((0, 1)) / seen.abs().max()).tolist()
    return [
        {"frame": stream.warmup + 1 + number * stream.stride, "max_rel_diff": error}
        for number, error in enumerate(errors)
    ]


@torch.no_grad()
def difference(model: ClipNet, runner: Runner, seed: int = 0) -> float:
    """The largest difference of their logits on noise, divided by the largest logit.

    Of a continual net over the warm-up and a few predictions, at all phases.

    Raises:
        ValueError: if they predict at other frames.
    """
    frames, shape = 1, runner.shape
    if isinstance(model, StreamNet):
        frames = model.warmup + 2 * model.stride
        model, runner = Stream(model), Stream(runner)
    differences, generator = [], torch.Generator().manual_seed(seed)
    for _ in range(frames):
        x = torch.randn(shape, generator=generator)
        expected, given = model(x), runner(x)
        if (given is None) != (expected is None):
            raise ValueError("expected predictions at the same frames")
        if expected is not None:
            differences.append((given - expected).abs().max() / expected.abs().max())
    return torch.stack(differences).max().item()
