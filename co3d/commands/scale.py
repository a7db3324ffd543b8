"""co3d scale: how evaluation grows with actors."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import click


@click.command()
@click.option("--actors", multiple=True, type=click.IntRange(min=1), default=(1, 2),
              show_default=True,
              help="Of a Ray cluster on this machine; may be repeated.")  # fmt: skip
@click.option("--limit", default=400, show_default=True, type=click.IntRange(min=1),
              help="Videos of synthetic-kinetics.")  # fmt: skip
def scale(actors: tuple[int, ...], limit: int) -> None:
    """Time runs on Ray with so many actors of one thread each, and the driver alone.

    The first row is of this process alone, its start included; the last one is of a network that
    costs nothing. The rows go to the tables among the runs, too.
    """
    import pandas as pd
    import torch

    from .. import report
    from ..data.dataset import Dataset, Video
    from ..data.sets import open_set
    from ..measure import readings
    from ..measure.cluster import Cluster
    from ..measure.runs import Local

    torch.set_num_threads(1)
    data = open_set("synthetic-kinetics", "test", limit=limit)
    nets = readings.loaded("x3d_mini,cox3d_mini", data.name)
    chosen = readings.readings(nets, data.name, ["native", "steady"])
    rows = [{"work": "videos", "actors": 0, **_timed(Local(), chosen, data)}]
    for count in actors:
        with Cluster(device="cpu", actors=count) as cluster:
            rows.append({"work": "videos", "actors": count, **_timed(cluster, chosen, data)})
    files = tuple(Video(f"{n:08d}", "a", 0, None, (0,)) for n in range(4000))
    made = Dataset("made", "test", ("a",), files)
    costless = SimpleNamespace(plan=None, model=None, trunk=None, header={"compute": {}})
    with Cluster(device="cpu", actors=2) as cluster:
        timed = _timed(cluster, [costless], made, predict=free)
        rows.append({"work": "driver", "actors": 2, **timed})
    rows = [{**row, "threads": 1} for row in rows]
    click.echo(pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:.1f}"))
    path = report.write("scaling", rows, report.output_folder(), notebook="", seed=0)
    click.echo(f"rows: {path}")


def free(readings: list[Any], frames: Any) -> list[dict]:
    """Records at no cost, as long as those of 400 classes."""
    return [{"status": "ok", "scores": [0.123456789] * 400} for _ in readings]


def _timed(engine: Any, readings: list[Any], data: Any, **options: Any) -> dict[str, float]:
    """Videos per second, timed from when every actor has given something."""
    from ..measure.runs import run

    clock = [time.perf_counter()]  # and at each video

    def outcomes(*arguments: Any) -> Iterator[Any]:
        for outcome in engine.outcomes(*arguments):
            clock.append(time.perf_counter())
            yield outcome

    timed = SimpleNamespace(compute=engine.compute, outcomes=outcomes)
    with TemporaryDirectory() as folder:
        run(readings, data, folder=Path(folder), engine=timed, progress=False, **options)
    videos = len(data.videos)
    first = 2 * getattr(engine, "actors", 0) * getattr(engine, "videos", 0)
    first = first if first < videos else 0
    return {"videos": videos, "videos_per_s": (videos - first) / (clock[-1] - clock[first])}
