"""From decoded RGB frames to a model's input: resize, crop, normalise, order channels."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

MAX_PIXELS = 2**26  # of a scaled frame: a strip of pixels would fill the memory
CROPS = {"start": 0.0, "centre": 0.5, "end": 1.0}  # share of what is cut off that lies before it


@dataclass(frozen=True)
class Transform:
    """Resize (bilinear), crop a square of image_size, / 255, then (x - mean) / std.

    Sizes round as in the published pipelines: the long side down, the crop's offset up.

    Attributes:
        image_size: side of the square, in pixels.
        mean, std: in the model's own channel order, "rgb" or "bgr".
        resize: the short side after scaling (None: image_size), or height and width, in pixels.
        crop: place of the square along the long side: "start" (left or top), "centre", "end".
            Along the short side it is centred.

    Raises:
        ValueError: for another channel order or crop, or a resize below the square.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = "rgb"
    resize: int | tuple[int, int] | None = None
    crop: str = "centre"

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f'channel_order is "rgb" or "bgr", not {self.channel_order!r}.')
        if self.crop not in CROPS:
            raise ValueError(f"expected a crop in {tuple(CROPS)}, given {self.crop!r}")
        least = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        if self.resize is not None and min(least) < self.image_size:
            raise ValueError(
                f"expected a resize of at least the crop's {self.image_size}, given {self.resize}"
            )

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """A clip without batch, float32 (3,T,S,S), from uint8 RGB frames (T,H,W,3).

        Raises:
            ValueError: for frames of another type or shape, or too narrow to be scaled.
        """
        if isinstance(frames, np.ndarray):  # torch wants it writable, without negative strides
            frames = np.require(frames, requirements="CW")
        clip = torch.as_tensor(frames)
        if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != torch.uint8 or 0 in clip.shape:
            raise ValueError(
                "Frames must be uint8 (T,H,W,3) with at least one frame and pixel, "
                f"not {str(clip.dtype).removeprefix('torch.')} {tuple(clip.shape)}."
            )
        clip = clip.permute(3, 0, 1, 2).float() / 255
        if self.channel_order == "bgr":
            clip = clip.flip(0)
        height, width = self._scaled(*clip.shape[2:])
        if height * width > MAX_PIXELS:
            raise ValueError(
                f"Frames of {clip.shape[3]} x {clip.shape[2]} pixels are too narrow: scaled to "
                f"{min(height, width)} on the short side they would have {width} x {height}."
            )
        if (height, width) != clip.shape[2:]:
            # Frame by frame, so that a frame's bits cannot depend on the frames beside it.
            images = [frame[None].contiguous() for frame in clip.unbind(1)]
            images = [F.interpolate(image, (height, width), mode="bilinear") for image in images]
            clip = torch.stack(images, dim=2)[0]
        top, left = self._corner(height, width)
        clip = clip[:, :, top : top + self.image_size, left : left + self.image_size]
        mean, std = (clip.new_tensor(values).view(3, 1, 1, 1) for values in (self.mean, self.std))
        return ((clip - mean) / std).contiguous()

    def frame(self, image: np.ndarray | torch.Tensor) -> torch.Tensor:
        """One frame, float32 (3,S,S), from uint8 RGB (H,W,3): bit for bit the clip's column.

        Raises:
            ValueError: as for a clip.
        """
        return self(image[None])[:, 0]

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture after scaling."""
        if isinstance(self.resize, tuple):
            return self.resize
        short, target = min(height, width), self.resize or self.image_size
        return height * target // short, width * target // short

    def _corner(self, height: int, width: int) -> tuple[int, int]:
        """Top and left of the square in a scaled picture."""
        along, across = CROPS[self.crop], CROPS["centre"]
        down, right = (along, across) if height > width else (across, along)
        size = self.image_size
        return math.ceil(down * (height - size)), math.ceil(right * (width - size))
