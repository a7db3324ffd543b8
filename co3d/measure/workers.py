"""Jobs on untrusted files, in processes of their own: each has so much time and memory, no more.

A process that crashes, hangs or asks for too much ends its own job, not the run.
"""

import multiprocessing
import resource
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError
from typing import NamedTuple, Self, TypeVar

import torch
from pebble import ProcessExpired, ProcessFuture, ProcessPool

SECONDS = 120.0  # per job
MEMORY = 4 * 2**30  # bytes of address space beyond what a process has when it starts
WAITING = 2  # jobs per process that are done ahead

Job = TypeVar("Job")
Result = TypeVar("Result")


class Failure(NamedTuple):
    """What became of a job without a result: status "timeout" or "decode_error", and why."""

    status: str
    note: str


class Processes:
    """Processes for such jobs; a context.

    Args:
        count: processes.
        seconds: that a job may take.
        memory: bytes that a process may ask for (held on Linux).
    """

    def __init__(self, count: int = 1, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self.count, self.seconds, self.memory = count, seconds, memory
        spawn = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
        self._pool = ProcessPool(count, context=spawn, initializer=_bound, initargs=(memory,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.stop()
        self._pool.join()

    def results(
        self, function: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Iterator[Result | Failure]:
        """The results of `function`, a module's own, for all jobs in their order.

        Raises:
            Exception: what `function` raises, except where there is no memory.
        """
        pending: deque[ProcessFuture] = deque()
        try:
            for job in jobs:
                pending.append(self._pool.schedule(function, args=(job,), timeout=self.seconds))
                if len(pending) > WAITING * self.count:
                    yield self._result(pending.popleft())
            while pending:
                yield self._result(pending.popleft())
        finally:  # also when the caller stops early
            for future in pending:
                future.cancel()

    def _result(self, future: ProcessFuture) -> object:
        try:
            return future.result()
        except TimeoutError:
            return Failure("timeout", f"Gave up after {self.seconds:g} s.")
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
                raise
            gigabytes = self.memory / 2**30
            return Failure("decode_error", f"Asked for more than {gigabytes:.3g} GiB of memory.")
        except ProcessExpired as error:
            code = error.exitcode
            return Failure("decode_error", f"The decoding process died (exit code {code}).")


def _bound(memory: int) -> None:
    """One thread, and a limit to the memory of this process."""
    torch.set_num_threads(1)
    try:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:  # not Linux: what a process uses, and a limit that holds, are unknown
        return
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
