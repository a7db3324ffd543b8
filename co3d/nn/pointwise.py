"""Layers that treat every frame alone, with the parameters and the `forward` of `torch.nn`."""

from torch import Tensor, nn

from .core import Continual


class Pointwise(Continual):
    """A layer that treats every frame alone: stepping it is calling it."""

    any_rank = True

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._prepare()

    def _prepare(self) -> None:
        if getattr(self, "inplace", False):
            self.inplace = False  # it would write to frames of the caller, or of another branch

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        """As of the torch layer; without time there is nothing to leave out by `pad`."""
        return super().forward(x)


def _pointwise(name: str, **body) -> type:
    body |= {"__doc__": f"`torch.nn.{name}` that can be stepped.", "__module__": __name__}
    return type(name, (Pointwise, getattr(nn, name)), body)


ACTIVATIONS = {
    name: _pointwise(name)
    for name in (
        *("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish"),
        *("Sigmoid", "Tanh", "Hardswish", "Hardsigmoid", "Hardtanh", "Softplus"),
    )
}
globals().update(ACTIVATIONS)  # where pickle looks for them
ReLU, SiLU, Sigmoid = (ACTIVATIONS[name] for name in ("ReLU", "SiLU", "Sigmoid"))
Dropout, Identity = _pointwise("Dropout", differs_in_training=True), _pointwise("Identity")


class BatchNorm3d(Pointwise, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` with running statistics; stepping needs evaluation mode."""

    any_rank = False
    differs_in_training = True

    def _prepare(self) -> None:
        if self.running_mean is None:
            raise ValueError(
                "expected BatchNorm3d with running statistics, given track_running_stats=False, "
                "which normalises over time"
            )


class Linear(Pointwise, nn.Linear):
    """`torch.nn.Linear` over axis 1, the channels, of a vector (B, C), a frame or a clip."""

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        return nn.Linear.forward(self, x.transpose(1, -1)).transpose(1, -1)


class Flatten(Pointwise, nn.Flatten):
    """`torch.nn.Flatten` of every frame: (B, C, T, H, W) to (B, C H W, T)."""

    def _prepare(self) -> None:
        if (self.start_dim, self.end_dim) != (1, -1):
            raise ValueError(
                f"expected Flatten(1, -1), given Flatten({self.start_dim}, {self.end_dim})"
            )

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        return x.transpose(1, 2).flatten(2).transpose(1, 2)
