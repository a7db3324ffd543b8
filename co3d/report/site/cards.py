"""A card for each model: what it is, what it costs, what is published and measured of it."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass

import pandas as pd

from ...zoo.checkpoints import shipped
from ...zoo.specs import PAPER, Spec
from ..style import label
from .markup import Html, bullets, link, page, table, terms, text
from .models import card, first_prediction, number, ordered, span, title
from .source import Source

ORIGIN = ("device", "threads", "torch", "commit", "date")
PRINTED = {
    "kinetics400_published": "Kinetics-400, the benchmark table",
    "charades_published": "Charades",
    "x3d_multiview_published": "Kinetics-400, several clips averaged (earlier release)",
}
COSTS = {
    "window": "Window", "frames": "Frames", "num_classes": "Classes", "dense": "Dense",
    "params": "Parameters", "macs_clip": "MACs per clip", "macs_step": "MACs per step, largest",
    "macs_frame": "MACs per frame, mean", "receptive_field": "RF", "padding": "Padding",
    "warmup": "Warm-up", "stride": "Stride", "state_mb": "State (MB)",
}  # fmt: skip
ACCURACY = (
    "dataset", "split", "weights_data", "protocol", "mode", "window", "frames", "views", "fps",
    "fill", "position", "top1", "map_common", "ci_low", "ci_high", "n_scored",
)  # fmt: skip
SPEED = (
    "implementation", "mode", "window", "batch", "precision", "latency_ms_median",
    "latency_ms_p95", "throughput_per_s", "state_mb", "alloc_mb",
)  # fmt: skip


def cards(source: Source) -> Iterator[tuple[str, str]]:
    """A page for each model."""
    tables = {name: source.table(name) for name in ("models", "accuracy", "benchmark")}
    for record in ordered():
        own = {name: rows[rows["model"] == record.name] for name, rows in tables.items()}
        yield card(record.name), _card(source, record, own)


def _card(source: Source, record: Spec, own: dict[str, pd.DataFrame]) -> str:
    at = card(record.name)
    parts = [
        f"<h1>{title(record.name)} <code>{record.name}</code></h1>\n",
        _about(record, at),
        '<h2 id="costs">Costs and timing</h2>\n',
        _costs(record, own["models"], at),
        '<h2 id="published">Published</h2>\n',
        _published(source, record, at),
        '<h2 id="measured">Measured here</h2>\n',
        _measured(record, own, at),
        '<h2 id="weights">Weights and how to load them</h2>\n',
        _weights(record),
        '<h2 id="limits">Limits</h2>\n',
        bullets(_limits(record, own)),
    ]
    return page(label(record.name), "".join(parts), at)


def _about(record: Spec, at: str) -> Html:
    twin = record.name.removeprefix("co") if record.continual else f"co{record.name}"
    seconds = number(record.frames / record.native_fps)
    norm = "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in (
        ("mean", record.mean), ("standard deviation", record.std)))  # fmt: skip
    what = "continual: runs frame by frame" if record.continual else "takes whole clips"
    kind = type(record.architecture).__name__
    design = "\n".join(_architecture(record.architecture))
    gates = {"clip": "over the clip", "frame": "over each frame", None: None}
    return terms(
        (
            ("What", Html(f"{what}; its twin is {link(twin, card(twin), at)}")),
            ("Architecture", Html(f"{kind}<pre>{text(design)}</pre>")),
            ("Paper of the clip net", record.paper and link(record.paper, record.paper)),
            ("Paper of the continual form", link(PAPER, PAPER) if record.continual else ""),
            ("Clip", f"{record.frames} frames, one in {record.frame_interval} of a video at 30 per "
                     f"second: {seconds} s at {record.native_fps:g} frames per second"),
            ("Frames", f"{record.image_size} × {record.image_size} pixels, "
                       f"{record.channel_order.upper()}, {norm}"),
            ("Native window", f"{record.window} frames" if record.continual else ""),
            ("Squeeze and excitation", gates[record.gate]),
            ("Classes", record.num_classes),
            ("Parameters", f"{record.n_params:,}"),
        )
    )  # fmt: skip


def _architecture(design: object, begin: str = "") -> Iterator[str]:
    """The hyper-parameters, a line each, nested ones with the name of their part."""
    for field in fields(design):
        value = getattr(design, field.name)
        if is_dataclass(value):
            yield from _architecture(value, f"{begin}{field.name}.")
        else:
            yield f"{begin}{field.name} = {value}"


def _costs(record: Spec, rows: pd.DataFrame, at: str) -> Html:
    if rows.empty:
        return Html("<p>Not counted so far.</p>\n")
    head = [*COSTS.values(), "First prediction at frame", "after (s)"]
    cells = []
    for _, row in rows.iterrows():
        sized = [_count(row[name], name) for name in COSTS]
        first = span(row["warmup"])
        cells.append([*sized, None if first is None else first + 1,
                      number(first_prediction(record, row))])  # fmt: skip
    file = link("models.csv", "results/models.csv", at)
    return table(Html(f"Computed from the network itself ({file}). MACs: multiply-accumulates of "
                      "convolutions and linear layers. RF, padding, warm-up and stride in frames."),
                 head, cells)  # fmt: skip


def _count(value: object, name: str) -> str:
    if name == "state_mb":
        return number(value)
    return "" if pd.isna(value) else f"{value:,.0f}"


def _published(source: Source, record: Spec, at: str) -> Html:
    parts = []
    for stem, words in PRINTED.items():
        rows = source.printed(stem)
        rows = rows[rows["model"] == record.name]
        rows = rows.drop(columns=["model", "approximate", "pareto_bold"], errors="ignore")
        numbers = rows.drop(columns=["mode", "frames", "window", "clips"], errors="ignore")
        if (numbers != "").any(axis=None):
            file = link(f"{stem}.csv", f"results/paper/{stem}.csv", at)
            parts.append(table(Html(f"{words} ({file})"), list(rows), rows.to_numpy()))
    return Html("".join(parts) or "<p>The paper has no numbers of this network.</p>\n")


def _measured(record: Spec, own: dict[str, pd.DataFrame], at: str) -> Html:
    parts = []
    for name, columns, words in (
        ("accuracy", ACCURACY, "Accuracy, in per cent, with its 95 % interval"),
        ("benchmark", SPEED, "Speed and memory, in milliseconds, per second and MB"),
    ):
        rows = own[name]
        if len(rows):
            cells = _cells(rows, (*columns, *ORIGIN))
            where = link("their columns", "results.html", at)
            parts.append(table(Html(f"{words} ({where})"), (*columns, *ORIGIN), cells))
    return Html("".join(parts) or "<p>Neither accuracy nor speed was measured.</p>\n")


def _cells(rows: pd.DataFrame, columns: Sequence[str]) -> list[list[str]]:
    return [
        ["" if pd.isna(v) else number(v, 4) if isinstance(v, float) else str(v) for v in row]
        for row in rows[list(columns)].itertuples(index=False)
    ]


def _weights(record: Spec) -> Html:
    rows = [
        (one.training_data, link(one.url.rpartition("/")[2], one.url), one.num_classes,
         one.channel_order.upper(), link(one.source.partition("://")[2], one.source), one.licence)
        for one in record.checkpoints
    ]  # fmt: skip
    rows += [
        (name, path.name, record.num_classes, record.channel_order.upper(),
         "comes with the package", "Apache-2.0")
        for name, path in shipped(record.name).items()
    ]  # fmt: skip
    head = ("Training data", "File", "Classes", "Channels", "Source", "Licence")
    name = rows[0][0]
    lines = [f'model, transform = co3d.load("{record.name}", "{name}")']
    if record.continual:
        lines = [f'model, transform = co3d.load("{record.name}", "{name}", window={record.window})']
        lines += ["stream = co3d.Stream(model)", "logits = stream(transform.frame(image)[None])"]
        lines[-1] += "  # None while it warms up"
    else:
        lines += ["logits = model(transform(frames)[None])  # frames: uint8 (T, H, W, 3)"]
    source = "\n".join(["import co3d", "", *lines])
    caption = "Weights, the same for a clip net and its continual twin."
    return Html(f"{table(caption, head, rows)}<pre>{text(source)}</pre>\n")


def _limits(record: Spec, own: dict[str, pd.DataFrame]) -> Iterator[Html | str]:
    if record.name.endswith("_mini"):
        yield ("It knows the motions of the generated sets and nothing else: its accuracy shows "
               "the mechanism, not what networks reach on real videos.")  # fmt: skip
    elif not set(own["accuracy"]["dataset"]) & {"kinetics400", "charades"}:
        yield "No published weights were loaded here and it was not run on a real data set."
    yield f"It was trained at {record.native_fps:g} frames per second: sample videos at that rate."
    if record.gate == "frame":
        yield ("Its squeeze-and-excitation averages over each frame, that of the clip net over the "
               "clip, so its logits are not those of the clip net.")  # fmt: skip
    strides = [
        int(each) for each in own["models"].loc[own["models"]["dense"] == 0, "stride"].dropna()
    ]
    if record.continual and max(strides, default=1) > 1:
        yield f"It predicts with every {strides[0]}. frame; with dense=True on every frame."
    if record.continual and not record.published and not record.name.endswith("_mini"):
        yield "The paper has no such network; its constants and costs follow from the code here."
    if "slowfast" in record.name:
        yield ("A stream takes every alpha-th frame into the slow path, the published clip net "
               "evenly spaced ones: two samplings.")  # fmt: skip
    if record.continual:
        yield "A prediction depends on the frames of its receptive field alone (RF)."
