"""Tables that compare the readings of a data set: by pairs, by class, with what is published."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..measure import metrics
from ..measure.accuracy import Result
from . import tables
from .style import label

GAINS = {  # differences, and the columns of `trios` that they are between
    "stream - clip": ("result", "result_clip"),
    "control - clip": ("result_control", "result_clip"),
    "stream - control": ("result", "result_control"),
}
_MODES = ("clip", "stream", "clips")


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


def trios(results: Sequence[Result]) -> pd.DataFrame:
    """The rows of streams and their `result`, beside their clip nets' and controls'.

    Columns of the clip net end with _clip, those of the control, clips averaged over the frames
    that the stream saw, with _control; NaN where there is none.
    """
    rows = pd.DataFrame([{**result.row, "result": result} for result in results])
    rows = rows.astype({"window": "Int64"})
    clips, streams, controls = (rows[rows["mode"] == mode] for mode in _MODES)
    both = tables.beside(streams, clips, ["weights"], how="left")
    return tables.beside(both, controls, ["weights", "protocol", "frames"], "_control", "left")


def differences(results: Sequence[Result], seed: int = 0) -> pd.DataFrame:
    """Streams, their clip nets and controls over the same videos: points of accuracy.

    Behind each is the 95 % interval of a paired bootstrap, its ends in columns "low" and "high" of
    that name. Of top-1, or of the common mAP where a video has several classes. Readings that
    scored other videos are compared over those that both scored.
    """
    rows = []
    for trio in trios(results).to_dict("records"):
        row = {"model": label(trio["model"]), "window": trio["window"]}
        for name, pair in GAINS.items():
            a, b = (trio[column] for column in pair)
            if isinstance(a, Result) and isinstance(b, Result):
                points = _difference(a, b, seed)
                row |= dict(zip((name, f"{name}, low", f"{name}, high"), points, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(a: Result, b: Result, seed: int) -> tuple[float, float, float]:
    shared = {video.id for video in a.videos} & {video.id for video in b.videos}
    in_a, in_b = (
        np.array([video.id in shared for video in result.videos], bool) for result in (a, b)
    )
    if a.row["top1"] is None:
        arrays, gain = (a.scores[in_a], b.scores[in_b], a.targets[in_a]), _map_points
    else:
        arrays, gain = (a.right[in_a], b.right[in_b]), _points
    points = gain(*arrays) if shared else None
    if points is None:
        return (float("nan"),) * 3
    return points, *metrics.bootstrap(gain, *arrays, repeats=1000, seed=seed)


def _points(right: np.ndarray, base: np.ndarray) -> float:
    return 100 * float(right.mean() - base.mean())


def _map_points(scores: np.ndarray, base: np.ndarray, targets: np.ndarray) -> float | None:
    if targets.any():
        return metrics.map_common(scores, targets) - metrics.map_common(base, targets)


def stated(differences: pd.DataFrame) -> pd.DataFrame:
    """The same for display: each difference and its 95 % interval in one cell, blank without."""
    table = differences[["model", "window"]].copy()
    for name in GAINS:
        if name in differences:
            ends = differences[[name, f"{name}, low", f"{name}, high"]].to_numpy()
            table[name] = ["" if value != value else f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
                           for value, low, high in ends]  # fmt: skip
    return table.set_index("model")


def by_class(results: Sequence[Result], labels: Sequence[str]) -> pd.DataFrame:
    """Accuracy of each class, a row, by reading, a column: clips and streams, in per cent.

    Top-1, or the average precision where a video has several classes; NaN without such videos.
    Columns are called by model and window; by protocol and seed too, where these would be the same.

    Raises:
        ValueError: if two readings differ in other things.
    """
    results = [r for r in results if r.row["mode"] != "clips" and r.row["n_scored"]]
    columns = {}
    for result, name in zip(results, _names([r.row for r in results]), strict=True):
        if result.row["top1"] is None:
            columns[name] = metrics.average_precisions(result.scores, result.targets)
        else:
            classes = [video.class_id for video in result.videos]
            shares = pd.Series(result.right).groupby(classes).mean()
            columns[name] = 100 * shares.reindex(range(len(labels))).to_numpy()
    return pd.DataFrame(columns, index=list(labels))


def _names(rows: Sequence[Mapping]) -> list[str]:
    """Of readings, as short as tells them from each other."""
    names = [f"{label(row['model'])} {row['window'] or row['mode']}" for row in rows]
    seeds = [f"seed {seed_of(row)}" if seed_of(row) else "" for row in rows]
    for words in ([row["protocol"] for row in rows], seeds):
        if len(set(names)) < len(names) and len(set(words)) > 1:
            pairs = zip(names, words, strict=True)
            names = [f"{name}, {word}" if word else name for name, word in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"expected one reading of each kind, given {', '.join(names)}")
    return names


def seed_of(row: Mapping) -> str:
    """Of the training, as the source of weights that come with the package tells it."""
    _, _, rest = row["weights"].partition(" --seed ")
    return rest.split()[0] if rest else ""


def against_published(
    rows: Sequence[Mapping], published: pd.DataFrame, dataset: str = "kinetics400"
) -> pd.DataFrame:
    """Accuracy on a whole split less the published one, where there are both, with the protocol.

    On Kinetics-400 only protocol `paper` is compared. On Charades no stream protocol is the
    paper's, so all are shown; the published column may be blank.
    """
    ours, theirs = "top1", "top1_percent"
    if dataset == "charades":
        ours, theirs = "map_common", "map_percent"
    table = pd.DataFrame(rows)
    plain = (table["dataset"] == dataset) & (table["limit"] == 0) & (table["mode"] != "clips")
    plain &= (table["views"] == 1) & (table["crops"] == 1) & table[ours].notna()
    plain &= table["position"].isna() | table["position"].isin([0, 0.5])
    if dataset == "kinetics400":
        plain &= table["protocol"] == "paper"
    printed = tables.numbered(published)[["model", "number", theirs]]
    table = tables.numbered(table[plain]).merge(printed, on=["model", "number"])
    table = table.rename(columns={"n_scored": "scored", ours: "measured", theirs: "published"})
    table = table.assign(model=table["model"].map(label))
    columns = ["model", "number", "protocol", "split", "scored", "measured", "published"]
    return table[columns].assign(points=table["measured"] - table["published"])
