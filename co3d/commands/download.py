"""co3d download: what is published elsewhere."""

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
    import re

    from .. import web
    from ..zoo import downloads

    chosen, failed = downloads.published(names, data), 0
    if sha256 is not None and check:
        raise ValueError("--check reads no file: leave --sha256 away")
    if sha256 is not None and (len(chosen) != 1 or not re.fullmatch("(?i)[0-9a-f]{64}", sha256)):
        raise ValueError(
            f"expected --sha256 with 64 hexadecimal digits and one file, given {sha256!r} and "
            f"{len(chosen)} files"
        )
    for record, one in chosen:
        title = f"{record.name:<18} {one.training_data:<12}"
        try:
            if check:
                size, where = web.size(one.url, one.mebibytes), one.url
            else:
                where = downloads.fetch(record, one, sha256 or "")
                size = where.stat().st_size
            click.echo(f"{title} {'answers' if size is None else f'{size:,} bytes':>17}  {where}")
        except (ValueError, OSError) as error:
            failed = 1
            click.echo(f"co3d: {record.name} {one.training_data}: {error}", err=True)
    return failed
