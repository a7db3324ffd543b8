import numpy as np
import pytest
import torch
import torch.nn.functional as F

from co3d.data.transforms import Transform

MEAN, STD = (0.45, 0.40, 0.35), (0.225, 0.25, 0.2)


def clip_of(t, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (t, height, width, 3), dtype=np.uint8)


# Height, width, size: wide, tall, square, odd, exact short side, exact, blown up.
@pytest.mark.parametrize(
    ("height", "width", "size", "resized", "top", "left", "resize"),
    [
        (256, 340, 182, (182, 241), 0, 30, None),
        (340, 256, 182, (241, 182), 30, 0, None),
        (100, 100, 48, (48, 48), 0, 0, None),
        (97, 131, 61, (61, 82), 0, 11, None),
        (48, 64, 48, (48, 64), 0, 8, None),
        (48, 48, 48, (48, 48), 0, 0, None),
        (30, 40, 48, (48, 64), 0, 8, None),
        (10, 90, 12, (12, 108), 0, 48, None),
        (60, 80, 112, (128, 171), 8, 30, (128, 171)),
    ],
)
def test_equals_interpolation_crop_and_normalisation(
    height, width, size, resized, top, left, resize
):
    frames = clip_of(3, height, width)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    expected = F.interpolate(pixels, resized, mode="bilinear", align_corners=False)
    expected = expected[:, :, top : top + size, left : left + size]
    expected = (expected - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    clip = Transform(size, MEAN, STD, resize=resize)(frames)
    assert clip.dtype == torch.float32 and clip.is_contiguous()
    torch.testing.assert_close(clip, expected.transpose(0, 1), rtol=0, atol=2e-6)


@pytest.mark.parametrize("height, width, size", [(256, 340, 182), (97, 131, 61), (48, 64, 48)])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_frame_is_the_clips_column_bit_for_bit(height, width, size, channel_order):
    frames, transform = clip_of(5, height, width), Transform(size, MEAN, STD, channel_order)
    clip = transform(frames)
    for t, image in enumerate(frames):
        assert torch.equal(transform.frame(image), clip[:, t])
    assert torch.equal(transform(torch.from_numpy(frames)), clip)
    assert torch.equal(transform(frames[1:3]), clip[:, 1:3])


def test_bgr_swaps_the_picture_not_mean_and_std():
    frames = clip_of(2, 48, 64)
    bgr = Transform(48, MEAN, STD, "bgr")(frames)
    assert torch.equal(bgr, Transform(48, MEAN, STD)(frames[..., ::-1]))


def test_takes_flipped_and_read_only_arrays():
    frames, transform = clip_of(2, 48, 64), Transform(48, MEAN, STD)
    expected = transform(np.ascontiguousarray(frames[:, ::-1]))
    assert torch.equal(transform(frames[:, ::-1]), expected)
    frames.setflags(write=False)
    assert torch.equal(transform(frames).flip(2), expected)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((48, 64, 3), np.uint8),
        np.zeros((2, 3, 48, 64), np.uint8),
        np.zeros((2, 48, 64, 3), np.float32),
        np.zeros((0, 48, 64, 3), np.uint8),
    ],
)
def test_refuses_what_is_no_uint8_clip(frames):
    with pytest.raises(ValueError, match=r"must be uint8 \(T,H,W,3\).*, not (uint8|float32) \("):
        Transform(48, MEAN, STD)(frames)


def test_a_strip_of_pixels_is_refused_before_it_fills_the_memory():
    strip = np.zeros((1, 100_000, 3), np.uint8)
    with pytest.raises(ValueError, match="100000 x 1 pixels are too narrow"):
        Transform(224, (0.45,) * 3, (0.225,) * 3).frame(strip)


def ramp(height, width):
    """A picture whose red is the row and whose green is the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)[None]


# Height, width, crop, resize, top, left of a 48-pixel square in a picture that is not scaled.
@pytest.mark.parametrize(
    ("height", "width", "crop", "resize", "top", "left"),
    [
        (48, 101, "start", None, 0, 0),
        (48, 101, "centre", None, 0, 27),
        (48, 101, "end", None, 0, 53),
        (101, 48, "start", None, 0, 0),
        (101, 48, "end", None, 53, 0),
        (63, 101, "start", 63, 8, 0),
        (63, 101, "centre", (63, 101), 8, 27),
        (101, 63, "end", 63, 53, 8),
    ],
)
def test_crops_lie_along_the_long_side(height, width, crop, resize, top, left):
    transform = Transform(48, (0.0,) * 3, (1.0,) * 3, resize=resize, crop=crop)
    corner = transform(ramp(height, width))[:, 0, 0, 0] * 255
    assert corner[:2].tolist() == pytest.approx([top, left])


def test_refuses_options_that_do_not_exist_or_fit():
    with pytest.raises(ValueError, match="'gbr'"):
        Transform(48, MEAN, STD, "gbr")
    with pytest.raises(ValueError, match="expected a crop in .*, given 'left'"):
        Transform(48, MEAN, STD, crop="left")
    for resize in (40, (40, 60)):
        with pytest.raises(ValueError, match="at least the crop's 48"):
            Transform(48, MEAN, STD, resize=resize)
