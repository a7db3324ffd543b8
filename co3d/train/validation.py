"""How well a net does on the centred clips of a split."""

import numpy as np
import torch

from ..data.video import VideoError
from ..measure import metrics
from ..nn import ClipNet
from .clips import Clips, multi_hot


@torch.inference_mode()
def validate(
    model: ClipNet, clips: Clips, shuffle: np.random.Generator | None = None
) -> float | None:
    """Per cent of videos whose centred clip is classified rightly; where videos have several
    classes, mean average precision (per cent) of the centred clips for the classes of the video,
    None where no video has any.

    With `shuffle` the frames of each clip come in random order: what a net can tell from frames
    without their motion. Damaged clips are left out.
    """
    logits, targets = [], []
    for n, video in enumerate(clips.videos):
        try:
            x, y = clips.batch([n], [clips.middle(n)])
        except VideoError:  # damaged
            continue
        if shuffle is not None:
            x = x[:, :, torch.from_numpy(shuffle.permutation(x.shape[2]))]
        x = x.to(model.classifier.weight.device)
        logits.append(model(x)[0].cpu())
        targets.append(multi_hot(video.class_ids, y.shape[1]) if clips.data.multilabel else y[0])
    if not logits:
        raise ValueError(f"expected undamaged {clips.data.split} videos, given none")
    logits, targets = torch.stack(logits), torch.stack(targets)
    if clips.data.multilabel:
        return metrics.map_common(logits, targets)
    return 100 * metrics.top_k(logits, targets, 1) / len(targets)
