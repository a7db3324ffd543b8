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
    streams, same = rows["mode"] == "stream", ["net", "protocol", "frames"]
    seen = rows.loc[streams, [*same, "window"]].drop_duplicates(same)
    seen = rows[same].merge(seen, "left")["window"].set_axis(rows.index)
    window = rows["window"].where(rows["mode"] != "clips", seen)
    several = rows.loc[streams, "protocol"].nunique() > 1
    name = rows["mode"].where(~streams, rows["protocol"]) if several else rows["mode"]
    name = name + window.map(" {:.0f}".format, na_action="ignore").fillna("")
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
                row[name], row[f"{name}, low"], row[f"{name}, high"] = _difference(a, b, seed)
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(a: Result, b: Result, seed: int) -> tuple[float, float, float]:
    ids = [[video.id for video in result.videos] for result in (a, b)]
    in_a, in_b = np.isin(*ids), np.isin(*ids[::-1])
    if a.row["top1"] is None:
        arrays, gain = (a.scores[in_a], b.scores[in_b], a.targets[in_a]), _map_points
    else:
        arrays, gain = (a.right[in_a], b.right[in_b]), _points
    points = gain(*arrays) if in_a.any() else None
    if points is None:
        return (np.nan,) * 3
    return points, *metrics.bootstrap(gain, *arrays, repeats=1000, seed=seed)


def _points(right: np.ndarray, base: np.ndarray) -> float:
    return 100 * float(right.mean() - base.mean())


def _map_points(scores: np.ndarray, base: np.ndarray, targets: np.ndarray) -> float | None:
    if targets.any():
        return metrics.map_common(scores, targets) - metrics.map_common(base, targets)
    return None


def stated(differences: pd.DataFrame) -> pd.DataFrame:
    """The same for display: each difference and its 95 % interval in one cell, blank without."""
    table = differences.set_index("model")
    for name in GAINS:
        if name in table:
            low, high = (
                table.pop(f"{name}, {end}").map("{:+.1f}".format) for end in ("low", "high")
            )
            text = table[name].map("{:+.1f}".format) + " (" + low + " to " + high + ")"
            table[name] = text.where(table[name].notna(), "")
    return table


def by_class(results: Sequence[Result], labels: Sequence[str]) -> pd.DataFrame:
    """Accuracy of each class, a row, by reading, a column: clips and streams, in per cent.

    Top-1, or the average precision where a video has several classes; NaN without such videos.
    Columns are called by model and window; by protocol and seed too, where these would be the same.

    Raises:
        ValueError: if two readings differ in other things.
    """
    results = [r for r in results if r.row["mode"] != "clips" and r.row["n_scored"]]
    rows = pd.DataFrame([r.row for r in results])
    spans = rows["window"].astype(float).map(" {:.0f}".format, na_action="ignore")
    names = rows["model"].map(label) + spans.astype(object).fillna(" " + rows["mode"])
    seeds = rows.apply(seed_of, axis=1)
    for words in (", " + rows["protocol"], (", seed " + seeds).where(seeds != "", "")):
        if names.duplicated().any() and words.nunique() > 1:
            names += words
    if names.duplicated().any():
        raise ValueError(f"expected one reading of each kind, given {', '.join(names)}")
    columns = {}
    for result, name in zip(results, names, strict=True):
        if result.row["top1"] is None:
            columns[name] = metrics.average_precisions(result.scores, result.targets)
        else:
            classes = [video.class_id for video in result.videos]
            shares = pd.Series(result.right).groupby(classes).mean()
            columns[name] = 100 * shares.reindex(range(len(labels))).to_numpy()
    return pd.DataFrame(columns, index=list(labels))


def seed_of(row: Mapping) -> str:
    """Of the training, as the source of weights that come with the package tells it."""
    _, _, rest = row["weights"].partition(" --seed ")
    return rest.partition(" ")[0]


def against_published(
    rows: Sequence[Mapping], published: pd.DataFrame, dataset: str = "kinetics400"
) -> pd.DataFrame:
    """Accuracy on a whole split less the published one, where there are both, with the protocol.

    On Kinetics-400 only protocol `paper` is compared. On Charades no stream protocol is the
    paper's, so all are shown; the published column may be blank.
    """
    charades, table = dataset == "charades", tables.numbered(pd.DataFrame(rows))
    ours, theirs = ("map_common", "map_percent") if charades else ("top1", "top1_percent")
    table = table[table[ours].notna() & (table["position"].fillna(0.5).isin([0, 0.5]))]
    table = table.query("dataset == @dataset and limit == 0 and mode != 'clips'")
    table = table.query("views == 1 and crops == 1 and (@charades or protocol == 'paper')")
    table = table.merge(tables.numbered(published)[["model", "number", theirs]])
    table = table.rename(columns={"n_scored": "scored", ours: "measured", theirs: "published"})
    table = table.assign(model=table["model"].map(label))
    columns = ["model", "number", "protocol", "split", "scored", "measured", "published"]
    return table[columns].assign(points=table["measured"] - table["published"])
