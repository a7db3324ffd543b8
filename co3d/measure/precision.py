"""What a network loses in another number type: its predictions against those in float32."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..nn import ClipNet, StreamNet
from ..deploy import optimize
from ..progress import bar
from ..zoo import list_models, spec
from ..zoo.checkpoints import scores, shipped
from . import protocols
from .decoding import decode
from .plans import Plan

BATCH = 8  # videos that are computed at once


def names_with_weights(dataset: str) -> list[str]:
    """The continual nets whose weights for a data set come with the package."""
    return [name for name in list_models() if spec(name).continual and dataset in shipped(name)]


@torch.inference_mode()
def rows(
    names: Sequence[str],
    data: Dataset,
    *,
    weights: str | None = None,
    limit: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    progress: bool = True,
) -> list[dict]:
    """Rows of results/precision.csv: `optimize(net, example, dtype)` against the net as it is.

    A stream is read where its receptive field has first been filled (protocol steady), a clip net
    on the middle of the video (native).

    Args:
        names: of models.
        data: those that are missing, damaged or too short for a model are left out.
        weights: as in `co3d.load` (default: those of the name of the data set).
        limit: what `data` was cut down to; 0 is all. Part of a row's key.
        dtype: to compare with float32.
        progress: whether to show a bar.

    Raises:
        ValueError: for an unknown model or weights, videos with several classes each, or if no
            video is left for a model.
    """
    from .. import load  # which composes zoo and data

    if data.multilabel:
        raise ValueError(f"expected one class per video, {data.name} has several")
    found = []
    for name in names:
        net, _ = load(name, weights or data.name)
        protocol = "steady" if isinstance(net, StreamNet) else "native"
        plan = protocols.plan(net, data.name, protocol)
        pairs = [_both(net, clips, dtype) for clips in _batches(data, plan, name, progress)]
        if not pairs:
            raise ValueError(f"expected videos that {name} can read in {data.name}, given none")
        exact, rough = (torch.cat(side) for side in zip(*pairs, strict=True))
        found.append(
            {
                "model": name,
                "weights": f"{net.weights.source} sha256:{net.weights.sha256[:12]}",
                "dataset": data.name,
                "split": data.split,
                "window": net.window if isinstance(net, StreamNet) else None,
                "dtype": str(dtype).removeprefix("torch."),
                "limit": limit,
                "n_scored": len(exact),
                "top1_agreement": 100 * float((exact.argmax(1) == rough.argmax(1)).double().mean()),
                "max_prob_diff": float((exact - rough).abs().max()),
            }
        )
    return found


def _batches(data: Dataset, plan: Plan, name: str, progress: bool) -> Iterator[Tensor]:
    """Clips (B, 3, T, S, S) of the videos that have the frames of a plan."""
    clips = []
    for video in bar(data.videos, name, shown=progress):
        decoded = decode((video, [plan])) if video.path else None
        if decoded and decoded.statuses[plan][0] == "ok":
            clips += [torch.from_numpy(decoded.clip(part)) for part in decoded.parts(plan)]
        if len(clips) == BATCH:
            yield torch.stack(clips)
            clips = []
    if clips:
        yield torch.stack(clips)


def _both(net: ClipNet, clips: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Probabilities (B, classes) of a net, and of its fast twin in another number type."""
    if not isinstance(net, StreamNet):
        return scores(net, net(clips)), scores(net, optimize(net, clips, dtype)(clips))
    twin = optimize(net, clips[:, :, 0], dtype)
    logits, _ = net.steps(clips)
    rough, _ = twin.steps(clips)
    return scores(net, logits[:, :, -1]), scores(net, rough[:, :, -1])
