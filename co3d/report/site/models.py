"""Which model? One table of all networks, published beside measured."""

from collections.abc import Iterator

import pandas as pd

from ...measure.forms import OPTIMISED
from ...zoo.checkpoints import shipped
from ...zoo.specs import SPECS, Spec
from ..speedups import NAMES
from ..style import family, label
from .markup import Html, bullets, link, page, swatch, table, text
from .source import Source

HEAD = (
    "Model", "A prediction per", "Published top-1 (%)", "co3d optimised, ms per frame or clip",
    "Fastest, ms per frame or clip", "which is", "First after (s)", "State, eager (MB)",
    "State, optimised (MB)", "Weights", "Licence",
)  # fmt: skip


def card(name: str) -> str:
    """Where the card of a model is."""
    return f"models/{name}.html"


def title(name: str) -> Html:
    """A model's name in its colour."""
    return Html(f"{swatch(family(name))}{text(label(name))}")


def ordered() -> list[Spec]:
    """All models, each clip net before its continual twin."""
    regular = [spec for spec in SPECS.values() if not spec.continual]
    return [each for spec in regular for each in (spec, SPECS[f"co{spec.name}"])]


def sized(models: pd.DataFrame, record: Spec) -> pd.DataFrame:
    """The rows of the models table for a network as it was published, a window or length each."""
    wanted = (models["model"] == record.name) & (models["num_classes"] == record.num_classes)
    return models[wanted & (models["dense"] == 0)]


def span(value: object) -> int | None:
    """A number of frames, None where there is none."""
    return None if pd.isna(value) or value == "" else int(value)


def number(value: object, digits: int = 3) -> str:
    """A number with so many digits, "" where there is none."""
    if value is None or pd.isna(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}".rstrip(".")


def first_prediction(record: Spec, row: pd.Series) -> float:
    """Seconds of video at the model's native rate before it can predict."""
    frames = row["warmup"] + 1 if record.continual else row["frames"]
    return frames / record.native_fps


def which(source: Source) -> Iterator[tuple[str, str]]:
    """models.html."""
    at, models, timed = "models.html", source.table("models"), source.table("benchmark")
    timed = timed[(timed["batch"] == 1) & (timed["precision"] == "float32")]
    machine = timed["device"].mode().get(0, "")
    timed = timed[timed["device"] == machine]
    timed = timed[timed["threads"] == timed["threads"].max()]
    published = source.printed("kinetics400_published")
    sizes = [(one, row) for one in ordered() for _, row in sized(models, one).iterrows()]
    threads = ", ".join(sorted({str(count) for count in timed["threads"]}))
    notes = (
        "Published top-1: on Kinetics-400, from the paper's benchmark table.",
        f"Measured here: median times, float32, batch 1, {machine or 'not yet'}, threads: "
        f"{threads}. Of a stream ms per frame, the mean over all steps between two predictions; of "
        "a clip net ms per clip.",
        f"~ is the time at the native window, at which streams are timed: {_wider(sizes)}. Blank "
        "where a network, or a clip of that length, was not timed.",
        "A stream predicts first after (warm-up + 1) / native frame rate, a clip net when its "
        "clip is full.",
        "State: the memory that one stream keeps between two frames, float32: of the network as "
        f"it is written (eager), and of {OPTIMISED}, which keeps more to compute less and is known "
        "where it was timed.",
        "Weights are named by the data that they were trained on and lead to the repository that "
        "publishes them; those for synthetic data come with the package.",
    )
    rows = [_row(record, row, published, timed) for record, row in sizes]
    body = f"""<h1>Which model?</h1>
<p>A clip net predicts once per clip. A continual net (<code>co…</code>) has the weights of its clip
net and predicts with each new frame, or every few frames where it has a temporal stride. A wider
window raises the published accuracy of all but CoI3D, at the same cost per step; the first
prediction comes later.</p>
{bullets(notes)}
{table("All networks; each name leads to its card.", HEAD, rows, named=True)}"""
    yield at, page("Which model?", body, at)


def _wider(sizes: list[tuple[Spec, pd.Series]]) -> str:
    """What a wider window adds to a step, in words."""
    shares = [
        row["window_sum"] * (1 - record.window / row["window"]) / row["macs_frame"]
        for record, row in sizes
        if record.continual
    ]
    more = f", up to {100 * max(shares):.1f} % more work" if shares else ""
    return f"a step of another window is the same but for a longer average at the end{more}"


def _row(record: Spec, row: pd.Series, published: pd.DataFrame, timed: pd.DataFrame) -> tuple:
    size = span(row["window"] if record.continual else row["frames"])
    column = "window" if record.continual else "frames"
    theirs = published[(published["model"] == record.name) & (published[column] == str(size))]
    native = size == (record.window if record.continual else record.frames)
    own = timed[timed["model"] == record.name]
    if record.continual:
        own = own[own["window"] == record.window]
    elif not native:  # clips are timed at their native length
        own = own[:0]
    own = own.assign(ms=per_frame(own, span(row["stride"]) or 1)).sort_values("ms")
    best, optimised = own[:1], own[own["implementation"] == OPTIMISED]
    names, licences = weights(record)
    return (
        Html(f"{swatch(family(record.name))}{link(record.name, card(record.name))}"),
        _per(record, row, size),
        "".join(theirs["top1_percent"]),
        _only(optimised["ms"], "" if native else "~ "),
        _only(best["ms"], "" if native else "~ "),
        "".join(best["implementation"].replace(NAMES)),
        number(first_prediction(record, row)),
        number(row["state_mb"]),
        _only(optimised["state_mb"]) if native else "",
        names,
        licences,
    )


def per_frame(timed: pd.DataFrame, stride: int) -> pd.Series:
    """Milliseconds of rows of the benchmark table: mean per frame of all steps for a prediction.

    With a stride of 1 also those of a clip.
    """
    return 1000 * timed["batch"] / timed["throughput_per_s"] / stride


def _per(record: Spec, row: pd.Series, size: int | None) -> str:
    if not record.continual:
        return f"clip of {size} frames"
    stride = int(row["stride"])
    return f"{'frame' if stride == 1 else f'{stride} frames'}, window {size}"


def _only(values: pd.Series, mark: str = "") -> str:
    """The one number of a column behind its mark, "" without any."""
    return mark + number(values.iloc[0]) if values.notna().any() else ""


def weights(record: Spec) -> tuple[Html, str]:
    """Which weights there are and whose, and their licences."""
    own = [name for name in shipped(record.name) if ":" not in name]
    found = [*map(text, own), *(link(one.training_data, one.source) for one in record.checkpoints)]
    licences = dict.fromkeys([one.licence for one in record.checkpoints])
    return Html(", ".join(found)), ", ".join(licences) or ("Apache-2.0" if own else "")
