"""A card for each model: what it is, what it costs, what is published and measured of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

import pandas as pd

from ...zoo.checkpoints import sha256, shipped
from ...zoo.specs import PAPER, Spec
from ..speedups import NAMES
from ..style import label
from .markup import Html, bullets, link, page, table, terms, text
from .models import card, first_prediction, number, ordered, per_frame, span, title
from .source import Source

PRINTED = {
    "kinetics400_published": "Kinetics-400, the benchmark table; per s: clips, or frames of a "
                             "stream, with the standard deviation",
    "charades_published": "Charades",
    "x3d_multiview_published": "Kinetics-400, several clips averaged (earlier release)",
}  # fmt: skip
SETTINGS = {"window": "Window {}", "frames": "Clip of {} frames", "clips": "Clips: {}"}
LINES = {
    "top1_percent": "Top-1 (%)", "top5_percent": "Top-5 (%)",
    "map_percent": "Mean average precision (%)", "params_millions": "Parameters (millions)",
    "peak_memory_mib": "Peak memory (MiB)", "gflops_per_prediction": "GFLOPs per prediction",
    "cpu_per_s": "Laptop CPU (per s)", "jetson_tx2_per_s": "Jetson TX2 (per s)",
    "jetson_xavier_per_s": "Jetson AGX Xavier (per s)", "rtx_2080_ti_per_s": "RTX 2080 Ti (per s)",
}  # fmt: skip
COSTS = {
    "params": "Parameters", "macs_clip": "MACs per clip", "macs_step": "MACs per step, largest",
    "macs_frame": "MACs per frame, mean", "receptive_field": "Receptive field (frames)",
    "padding": "Padding (frames)", "warmup": "Warm-up (frames)",
    "stride": "Frames between predictions", "state_mb": "State, eager (MB)",
}  # fmt: skip
KINDS = {
    "weights": "Weights", "split": "Split", "protocol": "Protocol",
    "implementation": "Form", "precision": "Precision", "mode": "Mode", "window": "Window",
    "frames": "Frames", "views": "Views", "fps": "Frames per s", "fill": "Fill",
    "position": "Position", "batch": "Batch", "device": "Device", "threads": "Threads",
}  # fmt: skip
ORIGIN = ("torch", "commit", "date")
ACCURACY = {
    "top1": "Top-1 (%)", "map_common": "mAP (%)", "interval": "95 % interval",
    "n_scored": "Videos",
}  # fmt: skip
SPEED = {
    "latency_ms_median": "Latency (ms), median", "latency_ms_p95": "Latency (ms), 95 %",
    "ms": "Mean per frame (ms)", "throughput_per_s": "Predictions per s", "state_mb": "State (MB)",
    "alloc_mb": "Allocated (MB)",
}  # fmt: skip


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
        elif isinstance(value, tuple) and is_dataclass(value[0]):
            yield f"{begin}{field.name} ="
            yield from (f"    {each}" for each in value)
        else:
            yield f"{begin}{field.name} = {value}"


def _costs(record: Spec, rows: pd.DataFrame, at: str) -> Html:
    if rows.empty:
        return Html("<p>Not counted so far.</p>\n")
    each = [row for _, row in rows.iterrows()]
    lines = [(words, [_count(row[name], name) for row in each]) for name, words in COSTS.items()]
    first = [None if span(row["warmup"]) is None else row["warmup"] + 1 for row in each]
    lines += [
        ("First prediction at frame", first),
        ("First prediction after (s)", [number(first_prediction(record, row)) for row in each]),
    ]
    file = link("models.csv", "results/models.csv", at)
    about = Html(
        f"Computed from the network itself ({file}). MACs: multiply-accumulates of convolutions "
        f"and linear layers.{' Dense: predicts on every frame.' * bool(rows['dense'].any())}"
    )
    return _beside(about, [_setting(record, row) for row in each], lines)


def _setting(record: Spec, row: pd.Series) -> str:
    """What tells a row of the models table from the others of its network."""
    name = "window" if record.continual else "frames"
    parts = [SETTINGS[name].format(row[name])]
    parts += ["dense"] if row["dense"] == 1 else []
    parts += [f"{row['num_classes']} classes"] if row["num_classes"] != record.num_classes else []
    return ", ".join(parts)


def _count(value: object, name: str) -> str:
    if name == "state_mb":
        return number(value)
    return "" if pd.isna(value) else f"{value:,.0f}"


def _beside(
    caption: object, heads: Sequence[str], lines: Iterable[tuple[str, Sequence[object]]]
) -> Html:
    """A column for each setting, a line for each quantity that has a value."""
    shown = [(words, *cells) for words, cells in lines if any(cells)]
    return table(caption, ("Quantity", *heads), shown, named=True)


def _published(source: Source, record: Spec, at: str) -> Html:
    parts = []
    for stem, words in PRINTED.items():
        rows = source.printed(stem)
        rows = rows[rows["model"] == record.name]
        lines = list(_printed(rows))
        if any(any(cells) for _, cells in lines):
            file = link(f"{stem}.csv", f"results/paper/{stem}.csv", at)
            name = next(name for name in reversed(SETTINGS) if any(rows.get(name, ())))
            heads = [SETTINGS[name].format(value) for value in rows[name]]
            parts.append(_beside(Html(f"{words} ({file})"), heads, lines))
            if any("*" in cell for _, cells in lines for cell in cells):
                parts.append("<p>* As printed, a copy of its GFLOPs; the network has "
                             f"{record.n_params:,} parameters.</p>\n")  # fmt: skip
    return Html("".join(parts) or "<p>The paper has no numbers of this network.</p>\n")


def _printed(rows: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    """The quantities of a published table, each with its values as printed."""
    for stem, words in LINES.items():
        if f"{stem}_mean" in rows:
            both = zip(rows[f"{stem}_mean"], rows[f"{stem}_std"], strict=True)
            yield words, [f"{mean} ±{spread}" if mean else "" for mean, spread in both]
        elif stem == "params_millions" and stem in rows:
            slips = rows[stem] == rows["gflops_per_prediction"]
            yield words, list(rows[stem].where(~slips, rows[stem] + "*"))
        elif stem in rows:
            yield words, list(rows[stem])


def _measured(record: Spec, own: dict[str, pd.DataFrame], at: str) -> Html:
    where = link("what the columns mean", "results.html", at)
    parts = []
    for data, rows in own["accuracy"].groupby("dataset", sort=False):
        words = Html(f"Accuracy on {data}, with its 95 % interval ({where}).")
        parts.append(_rows(words, _scored(record, rows), ACCURACY))
    if len(rows := own["benchmark"]):
        words = Html(f"Speed and memory ({where}).")
        parts.append(_rows(words, _timed(record, rows, own["models"]), SPEED))
    return Html("".join(parts) or "<p>Neither accuracy nor speed was measured.</p>\n")


def _scored(record: Spec, rows: pd.DataFrame) -> pd.DataFrame:
    """With weights by the name that loads them, and the interval in one column."""
    names = {sha256(path)[:12]: name for name, path in shipped(record.name).items()}
    found = rows["weights"].str.rpartition("sha256:")[2].map(names)
    ends = [f"{low:.1f} to {high:.1f}" for low, high in zip(rows["ci_low"], rows["ci_high"],
                                                            strict=True)]  # fmt: skip
    return rows.assign(weights=found.fillna(rows["weights_data"]), interval=ends)


def _timed(record: Spec, rows: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """With the names of forms that figures have, and the mean time per frame, of streams."""
    rows = rows.assign(implementation=rows["implementation"].replace(NAMES))
    strides = models.loc[models["dense"] == 0, "stride"]
    if not record.continual or strides.empty:
        return rows
    return rows.assign(ms=per_frame(rows, strides.iloc[0]))


def _rows(words: Html, rows: pd.DataFrame, values: Mapping[str, str]) -> Html:
    """A table of rows with what tells them apart; what they share is said once, above it."""
    kinds = {name: head for name, head in KINDS.items() if name in rows}
    apart = {name: head for name, head in kinds.items() if rows[name].nunique(dropna=False) > 1}
    same = [(head, _cell(rows[name].iloc[0], name)) for name, head in kinds.items()
            if name not in apart]  # fmt: skip
    same += [(name, ", ".join(dict.fromkeys(rows[name]))) for name in ORIGIN]
    said = "; ".join(f"{head[:1].lower()}{head[1:]} {value}" for head, value in same if value)
    shown = {**apart, **{name: head for name, head in values.items() if name in rows}}
    cells = [
        [_cell(value, name) for name, value in zip(shown, row, strict=True)]
        for row in rows[list(shown)].itertuples(index=False)
    ]
    return table(Html(f"{words} In all rows: {text(said)}."), list(shown.values()), cells)


def _cell(value: object, name: str) -> str:
    if pd.isna(value) or not isinstance(value, float):
        return "" if pd.isna(value) else str(value)
    return f"{value:g}" if name in KINDS else number(value, 4)


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
    return Html(f"{table(caption, head, rows, stacked=True)}<pre>{text(source)}</pre>\n")


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
        yield f"It predicts with every {_nth(strides[0])} frame; with dense=True on every frame."
    if record.continual and not record.published and not record.name.endswith("_mini"):
        yield "The paper has no such network; its constants and costs follow from the code here."
    if "slowfast" in record.name:
        yield ("A stream takes every alpha-th frame into the slow path, the published clip net "
               "evenly spaced ones: two samplings.")  # fmt: skip
    if record.continual:
        yield "A prediction depends on the frames of its receptive field alone (RF)."


def _nth(count: int) -> str:
    return str(count) + {2: "nd", 3: "rd"}.get(count, "th")
