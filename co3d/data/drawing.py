"""Drawing of the synthetic sets: random-dot kinematograms of 12 motions that no frame shows.

Each of the small shapes lives a few frames, carried by a motion about the middle of its life, and
is reborn elsewhere; ages are staggered, so every moment is like every other. A part of the shapes
follows what the video shows, the rest other motions drawn at random.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import numpy as np

# Velocity and rate of each class, in units of speed. Places are complex, x + iy with y down: the
# real part of a rate is growth, the imaginary part turning, clockwise on the screen.
DIAGONAL = 0.5**0.5
MOTIONS: dict[str, tuple[complex, complex]] = {
    "contracting": (0, -1),
    "drifting down": (1j, 0),
    "drifting down left": (DIAGONAL * (-1 + 1j), 0),
    "drifting down right": (DIAGONAL * (1 + 1j), 0),
    "drifting left": (-1, 0),
    "drifting right": (1, 0),
    "drifting up": (-1j, 0),
    "drifting up left": (DIAGONAL * (-1 - 1j), 0),
    "drifting up right": (DIAGONAL * (1 - 1j), 0),
    "expanding": (0, 1),
    "rotating clockwise": (0, 1j),
    "rotating counterclockwise": (0, -1j),
}
LABELS: tuple[str, ...] = tuple(sorted(MOTIONS))
# Shapes as distances from their middle, of like area at like radius: disc, square, triangle.
KINDS = (
    lambda x, y: np.sqrt(x * x + y * y),
    lambda x, y: 1.15 * np.maximum(abs(x), abs(y)),
    lambda x, y: 1.4 * np.maximum(0.866 * abs(x) + 0.5 * y, -y),
)
MEAN_RADIUS = 20.0  # pixels; at this distance from the centre all classes move equally fast


@dataclass(frozen=True)
class DotRecipe:
    """What the videos look like and how hard they are; pairs are ranges drawn per video."""

    width: int = 64
    height: int = 48
    frames: int = 128
    fps: int = 15  # at other rates (`render`) shapes move and live as long in seconds
    visible: float = 16.0  # shapes in the picture, on average
    lifetime: int = 10  # frames
    coherence: tuple[float, float] = (0.2, 0.7)  # share of shapes that follow the class
    speed: tuple[float, float] = (1.5, 3.0)  # pixels per frame
    direction_jitter: float = 8.0  # degrees, standard deviation per video
    centre_jitter: float = 4.0  # pixels, of the centre of turning and growth
    radius: tuple[float, float] = (2.0, 4.0)  # pixels, drawn per shape
    shade: tuple[float, float] = (140, 255)  # grey levels, of a shape's red, green and blue
    background: tuple[float, float] = (20, 80)  # grey levels, likewise
    pixel_noise: float = 8.0  # grey levels, standard deviation, new in each frame
    background_noise: float = 10.0  # grey levels, of the still, smooth background
    crf: int = 28  # H.264 quality
    version: int = 3  # raised when the same numbers come to give other files

    @property
    def hash(self) -> str:
        """The start of the sha256 of all numbers: the name of the folder of its videos."""
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()[:8]


def render(
    recipe: DotRecipe,
    times: np.ndarray,
    motion_at: Callable[[np.ndarray], np.ndarray],
    key: Sequence[int],
) -> np.ndarray:
    """The frames of one video, uint8 (T,H,W,3).

    Args:
        times: of the frames, rising from 0, in steps of 1 / recipe.fps.
        motion_at: the index in LABELS of the motion shown at each of the given times, -1 for none.
        key: seeds everything that is drawn at random.
    """
    rng = np.random.default_rng(key)
    canvas = np.repeat(_background(recipe, rng)[None], len(times), axis=0)
    _paint(canvas, recipe, *_lives(recipe, times, motion_at, rng))
    edge = _edge(recipe)
    picture = canvas[:, edge:-edge, edge:-edge]
    noise = rng.standard_normal((*picture.shape[:3], 1), np.float32)
    return np.clip(picture + recipe.pixel_noise * noise + 0.5, 0, 255).astype(np.uint8)


def _lives(
    recipe: DotRecipe,
    times: np.ndarray,
    motion_at: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Where each shape is, complex (N,T), NaN where there is none; its life's look, (N,T,6).

    A look is radius, kind (0, 1, 2), angle, and red, green, blue. The place in the middle of a
    life is uniform over a region so wide that no motion brings emptiness into the picture.
    Growth over a life, seen around its middle, crowds the shapes by the mean of cosh(2 growth age);
    as many of such lives are left out, so that all classes fill the picture equally.
    """
    speed, coherence = rng.uniform(*recipe.speed), rng.uniform(*recipe.coherence)
    rate, half = speed / MEAN_RADIUS, recipe.lifetime / 2
    reach = abs(complex(recipe.width, recipe.height)) / 2 * np.exp(rate * half)
    reach += speed * half + recipe.radius[1] + 3 * recipe.centre_jitter
    count = round(recipe.visible * (2 * reach) ** 2 / (recipe.width * recipe.height))
    lives = (count, (int(times[-1]) + 1) // recipe.lifetime + 2)

    lead = rng.integers(recipe.lifetime, size=(count, 1))  # of each shape's first life, at time 0
    ages = np.arange(recipe.lifetime) - (recipe.lifetime - 1) / 2
    age, life = (times + lead) % recipe.lifetime + ages[0], (times + lead) // recipe.lifetime
    life = life.astype(int)
    shown = motion_at(recipe.lifetime * np.arange(lives[1]) - ages[0] - lead)

    other = rng.integers(len(MOTIONS), size=lives)
    motion = np.where((rng.random(lives) < coherence) & (shown >= 0), shown, other)
    velocities, rates = np.array([MOTIONS[name] for name in LABELS]).T
    turned = np.exp(1j * np.deg2rad(rng.normal(0, recipe.direction_jitter)))
    middle = rng.uniform(-reach, reach, lives) + 1j * rng.uniform(-reach, reach, lives)
    kept = 1 / np.cosh(2 * rate * np.outer(rates.real, ages)).mean(axis=1)
    middle[rng.random(lives) > kept[motion]] = np.nan
    centre = complex(recipe.width, recipe.height) / 2
    centre += rng.normal(0, recipe.centre_jitter) + 1j * rng.normal(0, recipe.centre_jitter)

    looks = np.concatenate(
        [
            rng.uniform(*recipe.radius, (*lives, 1)),
            rng.integers(3, size=(*lives, 1)),
            rng.uniform(0, 2 * np.pi, (*lives, 1)),
            rng.uniform(*recipe.shade, (*lives, 3)),
        ],
        axis=-1,
    )
    row = np.arange(count)[:, None]
    drift = speed * turned * velocities[motion][row, life] * age
    places = centre + drift + middle[row, life] * np.exp(rate * rates[motion][row, life] * age)
    return places, looks[row, life]


def _edge(recipe: DotRecipe) -> int:
    """Margin around the picture that takes every shape of which a part may be seen."""
    return 2 * int(np.ceil(recipe.radius[1] + 1))


def _background(recipe: DotRecipe, rng: np.random.Generator) -> np.ndarray:
    """A still, smooth pattern, float32 (H,W,3) with the edge: noise on a coarse grid, blown up."""
    height, width = recipe.height + 2 * _edge(recipe), recipe.width + 2 * _edge(recipe)
    grid = recipe.background_noise * rng.standard_normal((7, 9, 3))
    grid += rng.uniform(*recipe.background, 3)
    for axis, size in enumerate((height, width)):
        at = np.linspace(0, grid.shape[axis] - 1, size)
        low = np.minimum(at.astype(int), grid.shape[axis] - 2)
        share = np.expand_dims(at - low, (1, 2) if axis == 0 else (0, 2))
        grid = (1 - share) * grid.take(low, axis) + share * grid.take(low + 1, axis)
    return grid.astype(np.float32)


def _paint(canvas: np.ndarray, recipe: DotRecipe, places: np.ndarray, looks: np.ndarray) -> None:
    """Draw the shapes into canvas (T,H,W,3): all their masks, then layer by layer of all frames."""
    edge = _edge(recipe)
    reach = edge // 2
    off = places - complex(recipe.width, recipe.height) / 2
    seen = (abs(off.real) < recipe.width / 2 + reach) & (abs(off.imag) < recipe.height / 2 + reach)
    shape, frame = np.nonzero(seen)
    layer = seen.cumsum(axis=0)[seen]
    by_layer = np.argsort(layer, kind="stable")
    shape, frame, layer = shape[by_layer], frame[by_layer], layer[by_layer]

    place, look = places[shape, frame], looks[shape, frame].astype(np.float32)
    column, row = np.floor(place.real).astype(int), np.floor(place.imag).astype(int)
    side = np.arange(-reach, reach + 1)
    dx = (side + (column + 0.5 - place.real)[:, None]).astype(np.float32)[:, None, :]
    dy = (side + (row + 0.5 - place.imag)[:, None]).astype(np.float32)[:, :, None]
    cos, sin = np.cos(look[:, 2, None, None]), np.sin(look[:, 2, None, None])
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    distance = np.empty_like(x)
    for kind, measure in enumerate(KINDS):
        these = look[:, 1] == kind
        distance[these] = measure(x[these], y[these])
    cover = np.clip(0.5 + look[:, 0, None, None] - distance, 0, 1).ravel()

    height, width = canvas.shape[1:3]
    corner = (frame * height + edge + row) * width + edge + column
    patch = (side[:, None] * width + side).ravel()
    inside = np.flatnonzero(cover)
    drawn, spot = np.divmod(inside, patch.size)
    pixel, cover, colour = corner[drawn] + patch[spot], cover[inside, None], look[drawn, 3:]
    pixels = canvas.reshape(-1, 3)
    for low, high in itertools.pairwise(np.bincount(layer[drawn]).cumsum()):
        at = pixel[low:high]
        below = pixels[at]
        pixels[at] = below + cover[low:high] * (colour[low:high] - below)
