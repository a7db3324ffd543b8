"""Drawings of the idea hold true numbers, and animations stay small."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image, ImageColor

from co3d.nn import Conv3d
from co3d.report import drawings
from co3d.report.drawings import AGAIN, EMPTY, NEW


def shown(fig):
    return [text.get_text() for text in fig.axes[0].texts if text.get_text()]


def faces(fig):
    return [to_hex(patch.get_facecolor()).upper() for patch in fig.axes[0].patches]


@pytest.mark.parametrize("step", [1, 3, 6])
def test_the_principle_is_drawn_with_true_numbers(step):
    kernel, frames = [1, 2, 3], [1, 2, 3, 4, 5, 6]
    sums = np.convolve(frames[:step], kernel[::-1])[step - 1 : step + 2]
    drawn = shown(drawings.principle(kernel, frames, step))
    assert [text for text in drawn if text.isdigit()] == [str(value) for value in sums]
    assert f"output $y_{step}$" in drawn


def test_the_shortcut_waits_for_the_main_branch():
    drawn = shown(drawings.residual_alignment(frames=5, delay=2))
    assert [text for text in drawn if "+" in text] == [f"$y_{t} + x_{t}$" for t in (1, 2, 3)]


def test_the_clip_has_zeros_where_the_stream_has_frames():
    fig, key = drawings.padding_shift(frames=6), 1
    assert shown(fig).count("0") == 4
    assert faces(fig).count(AGAIN) == 2 + 4 + key  # one at either end, then two
    assert faces(fig).count(NEW) == 4 + 2 + 8 + 6 + key


def convolved(kernel, frames, dilation, padding):
    layer = Conv3d(1, 1, (len(kernel), 1, 1), padding=(padding, 0, 0), dilation=(dilation, 1, 1),
                   bias=False).requires_grad_(False)  # fmt: skip
    layer.weight.copy_(torch.tensor(kernel).view(1, 1, -1, 1, 1))
    clip = torch.tensor(frames, dtype=torch.float32).view(1, 1, -1, 1, 1)
    return layer(clip).flatten().int().tolist(), layer.delay


@pytest.mark.parametrize(
    ("kernel", "dilation"), [((1, 2, 3), 1), ((1, 2, 3), 3), ((0, 0, 1), 2), ((4, -1), 1)]
)
@pytest.mark.parametrize("padding", [0, 1])
def test_the_unrolled_steps_are_those_of_the_layer(kernel, dilation, padding):
    frames = [3, 1, 4, 1, 5, 9, 2, 6, 5]
    fig = drawings.unrolled(kernel, frames, dilation, padding)
    padded, delay = convolved(kernel, frames, dilation, padding)
    alone, waiting = convolved(kernel, frames, dilation, 0)
    cells = shown(fig)[4 : 4 + (len(frames) + padding) * (2 + waiting)]
    outputs = [int(text) for text in cells[1 :: 2 + waiting]]
    tones = faces(fig)[1 :: 2 + waiting][: len(outputs)]
    assert outputs[delay:] == padded and tones[:delay] == [EMPTY] * delay
    real = [y for y, tone in zip(outputs, tones, strict=True) if tone == NEW]
    assert real == alone and tones.count(AGAIN) == 2 * padding


def frames_of(path):
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        return image.n_frames


def test_animation_of_a_clip_against_steps(tmp_path):
    images = drawings.clip_against_step([1, 2, 3], range(1, 11), clip=5)
    first, second = (drawings.save_gif(images, "steps", tmp_path / name, ms=900) for name in "ab")
    assert frames_of(first) == 10 and first.read_bytes() == second.read_bytes()


def test_hero_is_a_small_animation(tmp_path):
    video = np.random.default_rng(0).integers(0, 256, (48, 48, 64, 3), dtype=np.uint8)
    counts = {"clip_frames": 16, "clip_macs": 2e7, "step_macs": 1.5e6, "first_output": 40}
    path = drawings.hero(video, "hero", tmp_path, names=("X3D", "CoX3D"), every=4, **counts)
    assert path == tmp_path / "figures" / "hero.gif"
    assert frames_of(path) == 12 and path.stat().st_size < 1_000_000


def test_an_animation_keeps_the_colours_that_mean_something(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for place, color in enumerate(drawings.EXACT):
        image.paste(ImageColor.getrgb(color), (8 * place, 0, 8 * place + 8, 8))
    with Image.open(drawings.save_gif([image, image], "hero", tmp_path, ms=100)) as animation:
        seen = animation.convert("RGB")
    for place, color in enumerate(drawings.EXACT):
        assert seen.getpixel((8 * place + 4, 4)) == ImageColor.getrgb(color), color
