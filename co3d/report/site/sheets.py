"""Datasheets of the two generated sets, from the constants that they are generated with."""

from collections.abc import Iterator
from dataclasses import asdict

from ...data import drawing, synthetic, synthetic_charades
from .markup import Html, code, link, page, table, terms, text
from .source import Source

MEANINGS = {
    "width": "pixels",
    "height": "pixels",
    "frames": "of a video at fps, of the longest where they vary",
    "fps": "frames per second",
    "visible": "shapes in the picture, on average",
    "lifetime": "frames that a shape lives",
    "coherence": "share of the shapes that follow what the video shows; drawn per video",
    "speed": "pixels per frame, at 20 pixels from the centre; drawn per video",
    "direction_jitter": "degrees, standard deviation per video",
    "centre_jitter": "pixels, of the centre of turning and growth, standard deviation per video",
    "radius": "pixels, drawn per shape",
    "shade": "grey levels, of a shape's red, green and blue",
    "background": "grey levels, likewise",
    "pixel_noise": "grey levels, standard deviation, new in each frame",
    "background_noise": "grey levels, of the still, smooth background",
    "crf": "quality of the H.264 file",
    "version": "raised when the same numbers come to give other files",
    "shortest": "frames of the shortest video at fps",
    "actions": "chances of 0, 1, 2 … actions in a video",
    "span": "length of an action, share of the video's",
    "reversed": "share of the actions that are given with the end before the start",
}


def data(source: Source) -> Iterator[tuple[str, str]]:
    """data.html: both datasheets."""
    at = "data.html"
    trained = next((one for one in source.notebooks if one.name.startswith("A1")), None)
    notebook = link(trained.title, trained.page) if trained else text("the training notebook")
    body = f"""<h1>Datasheets of the generated sets</h1>
<p>Two sets of small videos are generated on first use, from constants and a seed. They are not
subsets of Kinetics or Charades; they have only the layout and the file formats of these.</p>
{_kinetics(notebook)}
{_charades(notebook)}"""
    yield at, page("Datasheets", body, at)


def _kinetics(notebook: Html) -> Html:
    recipe, splits = synthetic.RECIPE, synthetic.SPLITS
    labels = synthetic.SYNTHETIC_KINETICS_LABELS
    each = {split: count // len(labels) for split, count in splits.items()}
    pairs = (
        ("Composition", f"{sum(splits.values()):,} videos of {recipe.frames} frames, "
                        f"{recipe.width} × {recipe.height} pixels, {recipe.fps} frames per second; "
                        "one motion per video, classes in turn"),
        ("Splits", "; ".join(f"{split}: {count:,} videos, {each[split]} per class"
                             for split, count in splits.items())),
        ("Labels", f"{len(labels)} motions: {', '.join(labels)}"),
        ("Format", "H.264 in MP4, a folder per class; annotations/{split}.csv with label, "
                   "youtube_id, time_start, time_end, split and is_cc, as Kinetics-400 has it"),
        ("Known quirks", "the names of the videos are 11 characters of a hash that look like those "
                         "of Kinetics; labels of several words stand in quotes; the annotation "
                         "says 10 s, the videos last "
                         f"{recipe.frames / recipe.fps:.1f} s"),
        ("Size", "about 115 MB on disk"),
        *_common(notebook, "synthetic.synthetic_kinetics", recipe.hash),
    )  # fmt: skip
    return _sheet("synthetic-kinetics", pairs, recipe)


def _charades(notebook: Html) -> Html:
    recipe, splits = synthetic_charades.RECIPE, synthetic_charades.SPLITS
    period = synthetic_charades.PERIOD
    rates = ", ".join(f"{float(rate):.4g}" for rate in synthetic_charades.RATES.values())
    turned = ", ".join(f"{angle}°" for angle in synthetic_charades.ROTATIONS.values())
    pairs = (
        ("Composition", f"{sum(splits.values()):,} videos of {recipe.shortest / recipe.fps:.0f} to "
                        f"{recipe.frames / recipe.fps:.0f} s, {recipe.width} × {recipe.height} "
                        f"pixels, {recipe.fps} frames per second; motions come, overlap and go"),
        ("Splits", "; ".join(f"{split}: {count:,} videos" for split, count in splits.items())),
        ("Labels", f"the {len(synthetic_charades.LABELS)} motions of synthetic-kinetics, each "
                   "action with its start and end in seconds; chances of 0, 1, 2 … actions: "
                   f"{', '.join(map(str, recipe.actions))}"),
        ("Format", "H.264 in MP4 in one folder, Charades_v1_{split}.csv with the columns of "
                   "Charades, Charades_v1_classes.txt"),
        ("Known quirks", f"of every {period} videos, {len(synthetic_charades.RATES)} have another "
                         f"frame rate ({rates}) and {len(synthetic_charades.ROTATIONS)} lie on "
                         f"their side, which their metadata say ({turned}); some have no action; "
                         "some actions end after the video; "
                         f"{recipe.reversed:.0%} of them are given with the end before the start"),
        ("Size", "about 50 MB on disk"),
        *_common(notebook, "synthetic_charades.synthetic_charades", recipe.hash),
    )  # fmt: skip
    return _sheet("synthetic-charades", pairs, recipe)


def _common(notebook: Html, function: str, digest: str) -> tuple[tuple[str, object], ...]:
    """What holds for both sets."""
    why = (
        "to run and to check everything without a data set to download: the motion is in no single "
        "frame, so that a network has to look over time to know it"
    )
    how = Html(
        f"{code(f'co3d.data.{function}(seed=0)')} draws random-dot kinematograms and encodes "
        "them. Small shapes live a few frames, carried by a motion; a part of them follows what "
        "the video shows, the rest other motions at random. Files depend on the seed, the "
        f"constants below (hash {code(digest)}) and the encoder of the installed PyAV"
    )
    good = Html(f"tests, mechanisms and their sign, training the small networks ({notebook})")
    bad = (
        "saying how accurate a network is on real videos, or which architecture is better: what is "
        "measured on it stands in no figure or table of Kinetics or Charades"
    )
    return (
        ("Motivation", why),
        ("How it is generated", how),
        ("Collection, people", "none: nothing is recorded, no person is shown"),
        ("Recommended uses", good),
        ("Not recommended", bad),
        ("Licence", "Apache-2.0, as the code that generates it"),
    )


def _sheet(name: str, pairs: tuple, recipe: drawing.DotRecipe) -> Html:
    head = ("Constant", "Value", "Meaning")
    constants = [
        (code(field), str(value).strip("()"), MEANINGS[field])
        for field, value in asdict(recipe).items()
    ]
    shown = table("Its constants; two numbers are a range.", head, constants, stacked=True)
    return Html(f'<section><h2 id="{name}">{name}</h2>\n{terms(pairs)}{shown}</section>\n')
