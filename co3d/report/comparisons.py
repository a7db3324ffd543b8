"""Tables that compare the readings of a data set: by pairs, by class, with what is published."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ..measure import metrics
from ..measure.accuracy import Result, failures_as_wrong
from .style import label


def accuracies(results: Sequence[Result]) -> pd.DataFrame:
    """Every reading with its denominators and the 95 % interval, in per cent."""
    rows, several = [], any(result.row["map_common"] is not None for result in results)
    for result in results:
        row = result.row
        shares = {"top-1": row["top1"], "top-5": row["top5"], "as wrong": failures_as_wrong(row)}
        if several:
            shares = {"mAP official": row["map_official"], "mAP common": row["map_common"]}
        keys = {"model": label(row["model"]), "seed": _seed(row), "protocol": row["protocol"]}
        keys |= {"mode": row["mode"], "window": row["window"], "frames": row["frames"]}
        counts = {"planned": row["n_expected"], "found": row["n_found"], "scored": row["n_scored"]}
        interval = {"low": row["ci_low"], "high": row["ci_high"]}
        rows.append({**keys, **counts, **shares, **interval})
    table = pd.DataFrame(rows).astype({"window": "Int64"})
    return table.drop(columns=["seed"] if table["seed"].nunique() == 1 else [])


def by_reading(rows: pd.DataFrame, value: str = "top1") -> pd.DataFrame:
    """Accuracies at a glance: a row per clip net, a column per reading, NaN where there is none.

    A column is called by mode and window (by protocol and window where streams have several); a
    control has the window of the stream that saw the same frames.

    Args:
        rows: of results/accuracy.csv, of one data set and one training per net.
        value: the column that is shown.

    Raises:
        ValueError: if two rows are the same reading of a net.
    """
    rows = rows.assign(net=rows["model"].str.removeprefix("co").map(label))
    rows = rows.sort_values("mode", key=lambda mode: mode.map(_MODES.index), kind="stable")
    streams, same = rows[rows["mode"] == "stream"], ["net", "protocol", "frames"]
    seen = streams.drop_duplicates(same).set_index(same)["window"].to_dict()
    window = rows["window"].where(rows["mode"] != "clips", rows[same].apply(tuple, 1).map(seen))
    several = (rows["mode"] == "stream") & (streams["protocol"].nunique() > 1)
    name = rows["mode"].where(~several, rows["protocol"])
    name += window.map(" {:.0f}".format, na_action="ignore").fillna("")
    table = rows.assign(reading=name).pivot(index="net", columns="reading", values=value)
    return table.reindex(index=rows["net"].unique(), columns=name.unique())


def differences(results: Sequence[Result], seed: int = 0) -> pd.DataFrame:
    """Streams, their clip nets and controls over the same videos: points of accuracy.

    Behind each is the 95 % interval of a paired bootstrap, its ends in columns "low" and "high" of
    that name. Of top-1, or of the common mAP where a video has several classes. Readings that
    scored other videos are compared over those that both scored.
    """
    rows = []
    for stream, clip, control in _trios(results):
        row = {"model": label(stream.row["model"]), "window": stream.row["window"]}
        for name, a, b in zip(GAINS, (stream, control, stream), (clip, clip, control), strict=True):
            if a is not None and b is not None:
                found = _difference(a, b, seed)
                row |= dict(zip((name, f"{name}, low", f"{name}, high"), found, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def stated(differences: pd.DataFrame) -> pd.DataFrame:
    """The same for display: each difference and its 95 % interval in one cell, blank without."""
    table = differences[["model", "window"]]
    for name in [name for name in GAINS if name in differences]:
        parts = zip(*(differences[f"{name}{end}"] for end in ("", ", low", ", high")), strict=True)
        cells = [
            "" if pd.isna(value) else f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
            for value, low, high in parts
        ]
        table = table.assign(**{name: cells})
    return table.set_index("model")


def costs(results: Sequence[Result]) -> pd.DataFrame:
    """MMACs of one prediction by clip, stream and control, and how often the stream fits in."""
    rows = []
    for stream, clip, control in _trios(results):
        ours = stream.row["macs_per_prediction"] / 1e6
        row = {"model": label(stream.row["model"]), "window": stream.row["window"], "stream": ours}
        for name, other in (("clip", clip), ("control", control)):
            if other is not None:
                row[name] = other.row["macs_per_prediction"] / 1e6
                row[f"{name} / stream"] = row[name] / ours
        rows.append(row)
    return pd.DataFrame(rows)


def by_seed(results: Sequence[Result]) -> pd.DataFrame:
    """Accuracy of nets that were trained several times: a row per reading, a column per seed.

    Top-1, or the common mAP where a video has several classes.
    """
    rows = []
    for result in results:
        row, metric = result.row, "top1" if result.row["map_common"] is None else "map_common"
        keys = {"model": label(row["model"]), "mode": row["mode"], "window": row["window"]}
        rows.append({**keys, "seed": f"seed {_seed(row)}", "value": row[metric]})
    keys = ["model", "mode", "window"]
    table = pd.DataFrame(rows).astype({"window": "Int64"}).drop_duplicates([*keys, "seed"])
    table = table.pivot_table("value", keys, "seed", dropna=False, sort=False).dropna()
    return (
        table.assign(range=table.max(axis=1) - table.min(axis=1)).reset_index().set_index("model")
    )


def by_class(results: Sequence[Result], labels: Sequence[str]) -> pd.DataFrame:
    """Accuracy of each class, a row, by reading, a column: clips and streams, in per cent.

    Top-1, or the average precision where a video has several classes; NaN without such videos.
    Columns are called by model and window; by protocol and seed too, where these would be the same.

    Raises:
        ValueError: if two readings differ in other things.
    """
    kept = [one for one in results if one.row["mode"] != "clips" and one.row["n_scored"]]
    columns = {}
    for result, name in zip(kept, _names([result.row for result in kept]), strict=True):
        if result.row["top1"] is None:
            columns[name] = metrics.average_precisions(result.scores, result.targets)
        else:
            ids = [video.class_id for video in result.videos]
            right, every = metrics.per_class(result.right, ids, len(labels)).T
            columns[name] = 100 * np.divide(
                right, every, np.full(len(labels), np.nan), where=every > 0
            )
    return pd.DataFrame(columns, index=list(labels))


def against_published(
    rows: Sequence[Mapping], published: pd.DataFrame, dataset: str = "kinetics400"
) -> pd.DataFrame:
    """Accuracy on a whole split less the published one, where there are both, with the protocol.

    On Kinetics-400 only protocol `paper` is compared. On Charades no stream protocol is the
    paper's, so all are shown; the published column may be blank.
    """
    ours, theirs = ("map_common", "map_percent") if dataset == "charades" else _TOP1
    found = []
    for row in rows:
        if row["dataset"] != dataset or row["limit"] or row[ours] is None:
            continue
        span = "frames" if row["mode"] == "clip" else "window"
        same = published[(published["model"] == row["model"]) & (published[span] == row[span])]
        options = row["views"] != 1 or row["crops"] != 1 or row["position"] not in (None, 0, 0.5)
        foreign = dataset == "kinetics400" and row["protocol"] != "paper"
        if row["mode"] == "clips" or same.empty or options or foreign:
            continue
        printed = same[theirs].item()
        keys = {"model": label(row["model"]), span: row[span]}
        keys |= {"protocol": row["protocol"], "split": row["split"], "scored": row["n_scored"]}
        found.append({**keys, "measured": row[ours], "published": printed})
    table = pd.DataFrame(found)
    return table.assign(points=table["measured"] - table["published"]) if found else table


GAINS = ("stream - clip", "control - clip", "stream - control")
_TOP1 = "top1", "top1_percent"
_MODES = ("clip", "stream", "clips")


def _trios(
    results: Sequence[Result],
) -> Iterator[tuple[Result, Result | None, Result | None]]:
    """Each stream with the clip reading of its net and the control over the same frames."""
    for stream in results:
        if stream.row["mode"] != "stream":
            continue
        mine = {"model": stream.row["model"].removeprefix("co"), "weights": stream.row["weights"]}
        clip = _first(results, mode="clip", **mine)
        same = {"protocol": stream.row["protocol"], "frames": stream.row["frames"]}
        yield stream, clip, _first(results, mode="clips", **mine, **same)


def _first(results: Sequence[Result], **wanted) -> Result | None:
    return next((r for r in results if wanted.items() <= r.row.items()), None)


def _difference(a: Result, b: Result, seed: int) -> tuple[float, float, float]:
    shared = {video.id for video in a.videos} & {video.id for video in b.videos}
    if not shared:
        return (float("nan"),) * 3
    kept = [np.array([video.id in shared for video in one.videos]) for one in (a, b)]
    if a.row["top1"] is not None:
        ours, theirs = (one.right[rows] for one, rows in zip((a, b), kept, strict=True))
        return metrics.paired_bootstrap(ours, theirs, seed=seed)
    ours, theirs = (one.scores[rows] for one, rows in zip((a, b), kept, strict=True))
    targets = a.targets[kept[0]]
    if not targets.any():
        return (float("nan"),) * 3
    return metrics.paired_map(ours, theirs, targets, seed=seed)


def _names(rows: Sequence[Mapping]) -> list[str]:
    """Of readings, as short as tells them from each other."""
    names = [f"{label(row['model'])} {row['window'] or row['mode']}" for row in rows]
    seeds = [f"seed {_seed(row)}" if _seed(row) else "" for row in rows]
    for more in ([row["protocol"] for row in rows], seeds):
        if len(set(names)) < len(names) and len(set(more)) > 1:
            pairs = zip(names, more, strict=True)
            names = [f"{name}, {word}" if word else name for name, word in pairs]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"expected one reading of each kind, given several of {twice[0]}")
    return names


def _seed(row: Mapping) -> str:
    """Of the training, as the source of weights that come with the package tells it."""
    words = row["weights"].split()
    return words[words.index("--seed") + 1] if "--seed" in words[:-1] else ""
