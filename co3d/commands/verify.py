"""co3d verify: what is missing, broken or extra in a data set."""

from pathlib import Path

import click


@click.command()
@click.argument("dataset", metavar="DATASET")
@click.option("--split", help="train, val or test (default: the one that is evaluated).")
@click.option("--root", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where the set lies (default: its name under DATASETS_PATH).")  # fmt: skip
@click.option("--decode", is_flag=True, help="Decode every frame; takes minutes to hours.")
def verify(dataset: str, split: str | None, root: Path | None, decode: bool) -> int:
    """Compare the files of DATASET with its annotation; nothing is changed.

    DATASET is kinetics400, charades, a generated set, or a folder with one folder of videos per
    class. One line for each video that is missing or broken and for each extra file, then the
    counts. The exit code is 0 if all is there and can be opened, else 1. Published copies of
    Kinetics-400 lack some of their own videos: compare the last line.
    """
    from ..data.verify import verify

    report = verify(dataset, split, root=root, decode=decode)
    for finding in report.findings:
        click.echo(f"{finding.kind:<9}{finding.what}  {finding.why}".rstrip())
    click.echo(report.summary)
    return 0 if report.complete else 1
