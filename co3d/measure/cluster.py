"""Runs on a Ray cluster (https://docs.ray.io), from a laptop's cores to many machines.

Ray places actors that hold the networks, restarts those that die and retries what they were at.
This process hands them a few videos at a time, no more than they can begin with, and is the only
one that writes: what is left is what the same run leaves here.
"""

import importlib
import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

import av
import torch

from .readings import code_hash, native_runs
from .runs import Engine, Job, Local, Outcome, Planned, Predict, outcomes
from .workers import Processes

ENGINES = ("local", "ray")
VIDEOS = 8  # of a task
AHEAD = 2  # tasks of an actor: one that it does, one that waits for it
TRIES = 3  # of a task whose actor dies
PATIENCE = 10  # seconds after which actors are looked at again though nothing came
DEATHS = ("RayActorError", "WorkerCrashedError", "OutOfMemoryError", "NodeDiedError")  # of actors
DIED = f"Its worker died {TRIES} times."


class Worker:
    """Does the work of a run; an actor, of which each machine has some. It gets the networks with
    its first task: an actor that cannot be made would be taken for one that dies of a video."""

    def __init__(self, device: str, threads: int, decoders: int, bounds: dict) -> None:
        self.device, self.readings = device, None
        torch.set_num_threads(threads)
        self.processes = Processes(decoders, **bounds)

    def work(self, jobs: Sequence[Job], shared: Sequence, wanted: Mapping) -> list[Outcome]:
        """The outcomes of a task; the first one brings the networks (`shared`) along."""
        if self.readings is None:
            self._load(shared, wanted)
        decoded = self.processes.results
        return list(outcomes(jobs, self.readings, self.predict, decoded))

    def _load(self, shared: Sequence, wanted: Mapping[str, str]) -> None:
        for name, version in versions(self.device).items():
            if version != wanted[name]:
                raise ValueError(
                    f"a node of the cluster has another {name}, {version} in the place of "
                    f"{wanted[name]}: install the same everywhere"
                )
        readings, self.predict = ray_module().get(shared[0])
        for reading in readings:
            for net in (reading.model, reading.trunk):
                if net is not None and self.device != "cpu":
                    net.to(self.device)
        self.readings = readings


def versions(device: str) -> dict[str, str]:
    """Of all that decides numbers on a device."""
    engine = "native" if device == "cpu" and native_runs() else "eager"
    libraries = {"torch": torch.__version__, "av": av.__version__}
    return {**libraries, "co3d": code_hash(), "engine": engine}


@dataclass(eq=False)
class _Task:
    """Some videos, given to an actor, or to further ones where the first is slow or gone."""

    jobs: tuple[Job, ...]
    copies: int = 0
    done: bool = False

    @property
    def alone(self) -> bool:
        """Whether it is a single video, which shares its actor with nothing else."""
        return len(self.jobs) == 1


class Cluster:
    """An engine of `runs.run`; a context that joins a cluster, or starts one on this machine.

    Args:
        address: of the head ("auto": one that runs on this machine); None starts one.
        device: "cpu", "cuda", or None: GPUs where the cluster has any.
        actors: that hold the networks (default: as many as have room when a run begins).
        decoders: processes of each that decode.
        videos: of a task.

    Attributes:
        threads: of each actor, those of this process; as many CPUs are asked for, and one GPU.

    Raises:
        ValueError: if Ray is not installed.
        ConnectionError: if there is no cluster at the address.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        device: str | None = None,
        actors: int | None = None,
        decoders: int = 1,
        videos: int = VIDEOS,
    ) -> None:
        self.ray, self.address, self.device = ray_module(), address, device
        self.actors, self.decoders, self.videos = actors, decoders, videos
        self.threads = torch.get_num_threads()

    def __enter__(self) -> Self:
        try:
            _check_reachable(self.address)
            self.ray.init(self.address or "local", log_to_driver=False, logging_level="error")
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ConnectionError(
                f"no Ray cluster at {self.address}: {reason} (one that is protected wants "
                "RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN here, too)"
            ) from None
        try:
            self.actors = self._room()
            ask = self.ray.remote(versions).options(num_gpus=int(self.device == "cuda"))
            self.versions = self.ray.get(ask.remote(self.device))
            here = versions(self.device)
            for name in ("co3d", "engine"):
                if self.versions[name] != here[name]:
                    raise ValueError(f"the cluster at {self.address} has another version of {name}")
        except BaseException:
            self.ray.shutdown()
            raise
        return self

    def _room(self) -> int:
        """How many actors to make: as wanted, or as many as have room."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        gpus = [int(node.get("GPU", 0)) for node in nodes]
        self.device = self.device or ("cuda" if any(gpus) else "cpu")
        room = [int(node.get("CPU", 0)) // self.threads for node in nodes]
        if self.device == "cuda":
            room = map(min, room, gpus)
        if not (most := sum(room)):
            raise ValueError(
                f"no node of the cluster has {self.threads} CPUs, one for each thread"
                f"{', and a GPU' if self.device == 'cuda' else ''}: give fewer threads by "
                "OMP_NUM_THREADS"
            )
        return self.actors or most

    def __exit__(self, *exception: object) -> None:
        self.ray.shutdown()

    @property
    def compute(self) -> Mapping[str, Any]:
        """What actors compute with; all else of theirs is as it is here."""
        facts = {"device": self.device, "torch": self.versions["torch"], "av": self.versions["av"]}
        return facts if self.device == "cpu" else {**facts, "engine": "eager"}

    def outcomes(
        self, jobs: Sequence[Job], readings: Sequence[Planned], predict: Predict, bounds: dict
    ) -> Iterator[Outcome]:
        """Outcomes as they come. A video that an actor dies of `TRIES` times, alone with it, has
        the status "decode_error"; what one actor does not finish is given to another, too."""
        ray = self.ray
        kind = ray.remote(Worker).options(
            num_cpus=self.threads, num_gpus=int(self.device == "cuda"), max_restarts=-1,
            max_task_retries=TRIES - 1,
        )  # fmt: skip
        given = self.device, self.threads, self.decoders, bounds
        actors = [kind.remote(*given) for _ in range(min(self.actors, len(jobs)))]
        starts = range(0, len(jobs), self.videos)
        common = [ray.put((readings, predict))], self.versions  # in a list it stays a reference
        waiting = deque(_Task(tuple(jobs[n : n + self.videos])) for n in starts)
        running: dict[Any, tuple[_Task, Any]] = {}
        try:
            while waiting or any(not task.done for task, _ in running.values()):
                self._give(actors, waiting, running, common)
                ready, _ = ray.wait(list(running), timeout=PATIENCE)
                for reference in ready:
                    task, _ = running.pop(reference)
                    if not task.done:
                        yield from self._result(reference, task, waiting, running)
        finally:
            for actor in actors:
                ray.kill(actor)

    def _give(
        self, actors: Sequence, waiting: deque[_Task], running: dict, common: Sequence
    ) -> None:
        """Tasks to actors that have room; one without work takes a copy of what others are at."""
        for depth in range(AHEAD):
            for actor in actors:
                own = [task for task, where in running.values() if where is actor]
                if len(own) != depth or any(task.alone for task in own):
                    continue
                if waiting and not (own and waiting[0].alone):
                    task = waiting.popleft()
                elif not waiting and not own:
                    late = (t for t, _ in running.values() if not t.done and t.copies < TRIES)
                    task = min(late, key=lambda task: task.copies, default=None)
                else:
                    continue
                if task:
                    task.copies += 1
                    running[actor.work.remote(task.jobs, *common)] = task, actor

    def _result(
        self, reference: Any, task: _Task, waiting: deque[_Task], running: dict
    ) -> Sequence[Outcome]:
        """What came of a task. If its actor died of it, each video is tried alone; if it was alone,
        it has a status."""
        errors = self.ray.exceptions
        try:
            found = self.ray.get(reference)
            task.done = True
            return found
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            if "creation task" in str(error):
                raise ConnectionError(f"a node of the cluster cannot run co3d: {reason}") from None
            if not isinstance(error, tuple(getattr(errors, name) for name in DEATHS)):
                raise ConnectionError(
                    f"the cluster failed ({reason}): run the same command again, it goes on where "
                    "it stopped"
                ) from None
        if any(task is other for other, _ in running.values()):
            return ()  # a copy is at work
        task.done = True
        if not task.alone:
            waiting.extendleft(_Task((job,)) for job in reversed(task.jobs))
            return ()
        (job,) = task.jobs
        record = {"status": "decode_error", "note": DIED}
        return [Outcome(job, [record for _ in job.waiting], 0.0, 0.0)]


def ray_module() -> ModuleType:
    """Ray, where it is installed, which takes a second; it reports to nobody unless told to."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ValueError("ray is not installed: pip install 'co3d[cluster]'") from None


def _check_reachable(address: str | None) -> None:
    """Raises OSError where nobody listens, for which Ray would wait many minutes."""
    host, _, port = (address or "").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()


@contextmanager
def engine(
    name: str, address: str | None = None, *, device: str | None = None, workers: int = 1
) -> Iterator[Engine]:
    """The engine of that name, "local" or "ray".

    Args:
        address: of a Ray cluster's head; None or "" starts one on this machine.
        device: as of `Cluster`; a local engine computes where its networks are.
        workers: processes that decode, of each actor.

    Raises:
        ValueError: for another name, or an address of a local engine.
        ConnectionError: as `Cluster`.
    """
    if name not in ENGINES or (address and name == ENGINES[0]):
        given = f"{name!r} with the address {address}" if address else repr(name)
        raise ValueError(f"expected engine local, or ray with or without an address, given {given}")
    if name == ENGINES[0]:
        yield Local(workers)
        return
    with Cluster(address or None, device=device, decoders=workers) as cluster:
        yield cluster
