"""From decoded RGB frames to a model's input: resize, centre crop, normalise, order channels."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

MAX_PIXELS = 2**26  # of a scaled frame: a strip of pixels would fill the memory


@dataclass(frozen=True)
class Transform:
    """Short side to image_size (bilinear), centre crop, / 255, then (x - mean) / std.

    Sizes round as in the published pipelines: the long side down, the crop's offset up. `mean`
    and `std` are given in the model's own channel order, "rgb" or "bgr".
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = "rgb"

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f'channel_order is "rgb" or "bgr", not {self.channel_order!r}.')

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """A clip without batch, float32 (3,T,S,S), from uint8 RGB frames (T,H,W,3)."""
        # As torch likes it: writable and without the negative strides of a flip.
        clip = torch.as_tensor(
            np.require(frames, requirements="CW") if isinstance(frames, np.ndarray) else frames
        )
        if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != torch.uint8 or 0 in clip.shape:
            raise ValueError(
                "Frames must be uint8 (T,H,W,3) with at least one frame and pixel, "
                f"not {str(clip.dtype).removeprefix('torch.')} {tuple(clip.shape)}."
            )
        clip = clip.permute(3, 0, 1, 2).float() / 255
        if self.channel_order == "bgr":
            clip = clip.flip(0)
        short = min(clip.shape[2:])
        height, width = (side * self.image_size // short for side in clip.shape[2:])
        if height * width > MAX_PIXELS:
            raise ValueError(
                f"Frames of {clip.shape[3]} x {clip.shape[2]} pixels are too narrow: scaled to "
                f"{self.image_size} on the short side they would have {width} x {height}."
            )
        if short != self.image_size:
            # Frame by frame, so that a frame's bits cannot depend on the frames beside it.
            clip = torch.stack([_resize(frame, height, width) for frame in clip.unbind(1)], dim=1)
        top, left = -(-(height - self.image_size) // 2), -(-(width - self.image_size) // 2)
        clip = clip[:, :, top : top + self.image_size, left : left + self.image_size]
        mean, std = (clip.new_tensor(values).view(3, 1, 1, 1) for values in (self.mean, self.std))
        return ((clip - mean) / std).contiguous()

    def frame(self, image: np.ndarray | torch.Tensor) -> torch.Tensor:
        """One frame, float32 (3,S,S), from uint8 RGB (H,W,3): bit for bit the clip's column."""
        return self(image[None])[:, 0]


def _resize(frame: torch.Tensor, height: int, width: int) -> torch.Tensor:
    batch = frame[None].contiguous()
    return F.interpolate(batch, (height, width), mode="bilinear", align_corners=False)[0]
