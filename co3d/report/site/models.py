"""Which model? One table of all networks, published beside measured."""

from collections.abc import Iterator

import pandas as pd

from ...measure.rungs import OPTIMISED
from ...zoo.checkpoints import shipped
from ...zoo.specs import SPECS, Spec
from ..style import family, label
from .markup import Html, bullets, link, page, swatch, table, text
from .source import Source

HEAD = (
    "Model", "A prediction per", "Published top-1 on Kinetics-400 (%)", "co3d optimised (ms)",
    "Fastest (ms)", "which is", "First after (s)", "State (MB)", "Weights", "Licence",
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
    published = source.printed("kinetics400_published")
    rows = [
        _row(record, row, published, timed)
        for record in ordered()
        for _, row in sized(models, record).iterrows()
    ]
    threads = ", ".join(sorted({str(count) for count in timed["threads"]}))
    notes = (
        "Published: top-1 on Kinetics-400 from the paper's benchmark table; ~ is approximate.",
        f"Measured here: the median time from the clip or the last frame to the prediction, "
        f"float32, batch 1, {machine or 'not yet'}, threads: {threads}. Blank where a network was "
        "not timed; a step is timed at its native window, and the window changes its time little.",
        "A stream predicts first after (warm-up + 1) / native frame rate, a clip net when its "
        "clip is full.",
        "State: the memory that one stream keeps between two frames, float32.",
        "Weights are named by the data that they were trained on and lead to the repository that "
        "publishes them; those for synthetic data come with the package.",
    )
    body = f"""<h1>Which model?</h1>
<p>A clip net predicts once per clip. A continual net (<code>co…</code>) has the weights of its clip
net and predicts with each new frame, or every few frames where it has a temporal stride. A wider
window raises the published accuracy of all but CoI3D, at the same cost per step; the first
prediction comes later.</p>
{bullets(notes)}
{table("All networks; each name leads to its card.", HEAD, rows)}"""
    yield at, page("Which model?", body, at)


def _row(record: Spec, row: pd.Series, published: pd.DataFrame, timed: pd.DataFrame) -> tuple:
    size = span(row["window"] if record.continual else row["frames"])
    column = "window" if record.continual else "frames"
    theirs = published[(published["model"] == record.name) & (published[column] == str(size))]
    top1 = "".join(("~ " if one.approximate == "1" else "") + one.top1_percent
                   for one in theirs.itertuples())  # fmt: skip
    own = timed[timed["model"] == record.name].sort_values("latency_ms_median")
    if record.continual:
        own = own[own["window"] == size]
    elif size != record.frames:  # clips are timed at their native length
        own = own[:0]
    best = own.iloc[0] if len(own) else None
    optimised = own.loc[own["implementation"] == OPTIMISED, "latency_ms_median"]
    names, licences = weights(record)
    return (
        Html(f"{swatch(family(record.name))}{link(record.name, card(record.name))}"),
        f"frame, window {size}" if record.continual else f"clip of {size} frames",
        top1,
        number(optimised.iloc[0] if len(optimised) else None),
        number(None if best is None else best["latency_ms_median"]),
        None if best is None else best["implementation"],
        number(first_prediction(record, row)),
        number(row["state_mb"]),
        names,
        licences,
    )


def weights(record: Spec) -> tuple[Html, str]:
    """Which weights there are and whose, and their licences."""
    own = [name for name in shipped(record.name) if ":" not in name]
    found = [*map(text, own), *(link(one.training_data, one.source) for one in record.checkpoints)]
    licences = dict.fromkeys([one.licence for one in record.checkpoints])
    return Html(", ".join(found)), ", ".join(licences) or ("Apache-2.0" if own else "")
