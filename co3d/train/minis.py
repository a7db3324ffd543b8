"""How the weights that come with co3d were trained."""

from .loop import train
from .run import run_folder


def train_mini(name: str, data: str, seed: int = 0, limit: int | None = None) -> list[dict]:
    """Trains a mini model on a synthetic set, in its `run_folder`; the arguments are `train`'s.

    On synthetic-charades it begins from its own weights of that seed of synthetic-kinetics, which
    are to be trained first. What is finished is taken as it is.

    Returns:
        The rows of `train`.
    """
    start, begin = None, ""
    if data == "synthetic-charades":
        start = run_folder(name, "synthetic-kinetics", seed, limit) / "weights.safetensors"
        begin = f" {data} --from synthetic-kinetics{f':{seed}' if seed else ''}"
    folder = run_folder(name, data, seed, limit)
    source = f"co3d train {name}{begin} --seed {seed}"
    options = {"seed": seed, "limit": limit, "source": source, "progress": False}
    return train(name, data, folder, start=start, **options)
