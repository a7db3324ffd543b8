"""The folder of a training run: what is kept after every epoch, and taken up again."""

import json
import os
from pathlib import Path

import torch
from torch import nn

from ..paths import logs_path


def run_folder(name: str, data: str | Path, seed: int, limit: int | None = None) -> Path:
    """Where the training of a model on a data set is kept, begun or not; a trial's elsewhere."""
    trial = f"-first-{limit}" if limit else ""
    return logs_path() / "train" / f"{name}-{Path(data).name}-{seed}{trial}"


class Run:
    """A run that was begun in the folder, or a new one; restores model and optimizer.

    Attributes:
        curve: a row per finished epoch.
        notes: on the training data, a sentence each.

    Raises:
        ValueError: if the folder holds a damaged run or one of other settings.
    """

    def __init__(
        self, folder: Path, settings: dict, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.folder, self.settings = Path(folder), settings
        self.model, self.optimizer = model, optimizer
        self.curve: list[dict] = []
        self.notes: tuple[str, ...] = ()
        if (self.folder / "last.pt").exists():
            self._resume(self.folder / "last.pt")

    def keep(self, row: dict) -> None:
        """Writes everything after an epoch, under temporary names first."""
        self.curve.append(row)
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"settings": self.settings, "curve": self.curve, "notes": list(self.notes)}
        part = self.folder / "last.pt.part"
        learned = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, **learned}, part)
        os.replace(part, self.folder / "last.pt")
        part = self.folder / "curve.json.part"
        part.write_text(json.dumps(state, indent=1))
        os.replace(part, self.folder / "curve.json")

    def _resume(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            settings, curve, notes = (state[key] for key in ("settings", "curve", "notes"))
        except Exception as error:  # whatever a damaged file makes the reader say
            raise ValueError(
                f"{path} is not a whole checkpoint: delete it to begin anew"
            ) from error
        if settings != self.settings:
            raise ValueError(
                f"{path} belongs to a run of other settings, {settings}, expected {self.settings}: "
                "name another folder, or delete it"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curve, self.notes = list(curve), tuple(notes)
