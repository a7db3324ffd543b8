"""co3d download: what is published elsewhere."""

import re
import sys

import click


@click.group()
def download() -> None:
    """Fetch what is published elsewhere."""


@download.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--data", help="Only the weights of this training data, such as charades.")
@click.option("--sha256", help="What the file must have; for one file.")
@click.option("--check", is_flag=True, help="Only ask every address whether it answers.")
def weights(names: tuple[str, ...], data: str | None, sha256: str | None, check: bool) -> int:
    """Fetch the published weights of MODELs (default: all) into the cache, or resume.

    The first file of a name that fits its model is pinned by its sha256 in weights.lock.json
    there; ever after it must be the same. A file that is there is verified.
    """
    from ..zoo import downloads

    chosen = downloads.published(names, data)
    if check:
        if sha256 is not None:
            raise ValueError("--check reads no file: leave --sha256 away")
        return _check([(weights.url, weights.mebibytes) for _, weights in chosen])
    if sha256 is not None and (len(chosen) != 1 or not re.fullmatch("(?i)[0-9a-f]{64}", sha256)):
        raise ValueError(
            f"expected --sha256 with 64 hexadecimal digits and one file, given {sha256!r} and "
            f"{len(chosen)} files"
        )
    failed = 0
    for record, published in chosen:
        title = f"{record.name} {published.training_data}"
        try:
            path = downloads.fetch(record, published, sha256 or "")
            click.echo(f"{title:<31} {path.stat().st_size:>11,} bytes  {path}")
        except (ValueError, OSError) as error:
            failed = 1
            click.echo(f"co3d: {title}: {error}", err=True)
    return failed


@download.command()
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="val",
              show_default=True)  # fmt: skip
@click.option("--parts", type=click.IntRange(min=1), help="Only the first so many archives "
              "of 1.5 GB (default: all; val has 20).")  # fmt: skip
@click.option("--check", is_flag=True, help="Only ask every address whether it answers.")
def kinetics400(split: str, parts: int | None, check: bool) -> int:
    """Fetch videos and annotations of Kinetics-400 into DATASETS_PATH/kinetics400, or resume.

    Each archive is unpacked and deleted before the next one. Some videos are in no archive:
    co3d verify kinetics400 lists them.
    """
    from ..data.download import fetch_kinetics, kinetics_urls

    if check:
        return _check([(url, None) for url in kinetics_urls(split, parts)])
    click.echo(f"in {fetch_kinetics(split, parts, tell=click.echo)}")
    return 0


@download.command()
@click.option("--annotations-only", is_flag=True, help="No videos (3 MB).")
@click.option("--form", type=click.Choice(["videos", "frames"]), default="videos",
              show_default=True, help="Videos at 480p (13 GB), or JPEG frames at 24 per second "
              "(76 GB, and as much for the archive meanwhile).")  # fmt: skip
@click.option("--yes", is_flag=True, help="Accept the licence: non-commercial use only.")
@click.option("--check", is_flag=True, help="Only ask every address whether it answers.")
def charades(annotations_only: bool, form: str, yes: bool, check: bool) -> int:
    """Fetch annotations and videos of Charades into DATASETS_PATH/charades, or resume.

    Its licence allows non-commercial use only.
    """
    from ..data.download import charades_archives, fetch_charades

    def agree(notice: str) -> None:
        click.echo(notice)
        if yes:
            return
        if not sys.stdin.isatty():
            raise ValueError("expected --yes, which accepts the licence, where nobody can answer")
        click.confirm("Do you accept this?", abort=True)

    form = "annotations" if annotations_only else form
    if check:
        return _check([(archive.url, None) for archive in charades_archives(form)])
    click.echo(f"in {fetch_charades(form, agree=agree, tell=click.echo)}")
    return 0


def _check(addresses: list[tuple[str, float | None]]) -> int:
    """Prints the size behind each address, whose MiB may be known; 1 if one does not answer."""
    from .. import web

    failed, total = 0, 0
    for url, mebibytes in addresses:
        try:
            size = web.size(url, mebibytes)
        except (ValueError, OSError) as error:
            failed = 1
            click.echo(f"co3d: {error}", err=True)
            continue
        total += size
        click.echo(f"{f'{size:,} bytes' if size else 'answers':>22}  {url}")
    click.echo(f"{f'{total:,} bytes':>22}  in all")
    return failed
