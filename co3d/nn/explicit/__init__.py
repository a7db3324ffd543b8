"""A continual net's step as a pure function of tensors, for runtimes that know no Python.

    [logits,] *written = step(frame, counter, *read)

There is one such function for each phase of the temporal strides, in which only the layers run that
are due. Maps are (B, C, H, W), vectors (B, C), and all state lies in queues of separate tensors, so
that a runner hands on pointers and copies nothing.
"""

from .rounds import Kinds, Places, Rounds
from .steps import Explicit, Step
from .tape import PLAIN, Clock, Form, Queue, Tape

__all__ = [
    "PLAIN",
    "Clock",
    "Explicit",
    "Form",
    "Kinds",
    "Places",
    "Queue",
    "Rounds",
    "Step",
    "Tape",
]
