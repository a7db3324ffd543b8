"""Runs on a Ray cluster (https://docs.ray.io), from a laptop's cores to many machines.

Actors hold the networks and get a few videos at a time; one that dies is replaced. This process
alone writes: what is left is what the same run leaves here.
"""

import importlib
import os
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import av
import torch

from .readings import FORMAT, Reading, native_runs
from .runs import Job, Local, Outcome, Predict, outcomes
from .workers import Processes

VIDEOS = 8  # given to an actor at once
TRIES = 3  # of a video whose actor dies, alone with it
DEATHS = ("RayActorError", "WorkerCrashedError", "OutOfMemoryError", "NodeDiedError")  # of actors
DIED = f"Its worker died {TRIES} times."


class Worker:
    """An actor: the networks of a run, and processes that decode."""

    def __init__(
        self, run: tuple, expected: dict, device: str, threads: int, decoders: int
    ) -> None:
        torch.set_num_threads(threads)
        if versions() != expected:
            raise ValueError(f"it has {versions()} in the place of {expected}")
        self.readings, self.predict = run
        for reading in self.readings if device != "cpu" else ():
            for net in filter(None, (reading.model, reading.trunk)):
                net.to(device)
        self.processes = Processes(decoders)

    def work(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The outcomes of these videos; of none once the actor is ready."""
        return list(outcomes(jobs, self.readings, self.predict, self.processes))


def versions() -> dict[str, Any]:
    """Of all that decides numbers and has to be the same everywhere."""
    number = torch.__version__.partition("+")[0]  # of builds for CPUs and GPUs
    return {"format": FORMAT, "torch": number, "av": av.__version__, "native": native_runs()}


class Cluster:
    """An engine of `runs.run`; a context that joins a cluster, or starts one on this machine.

    Args:
        address: of the head ("auto": one that runs on this machine); None starts one.
        device: "cpu", "cuda", or None: GPUs where the cluster has any.
        actors: that hold the networks (default: as many as have room when a run begins).
        decoders: processes of each that decode.
        videos: that an actor gets at once.

    Attributes:
        threads: of each actor, those of this process; as many CPUs are asked for, and one GPU.

    Raises:
        ValueError: if Ray is not installed, or no node has room.
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
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported
        try:
            self.ray = importlib.import_module("ray")
        except ImportError:
            raise ValueError("ray is not installed: pip install 'co3d[cluster]'") from None
        self.address, self.device, self.actors = address, device, actors
        self.decoders, self.videos, self.threads = decoders, videos, torch.get_num_threads()
        self.compute = {}

    def __enter__(self) -> Self:
        try:
            host, _, port = (self.address or "").rpartition(":")
            if port.isdigit():  # where nobody listens, Ray would wait many minutes
                place = host.rpartition("/")[2], int(port)
                socket.create_connection(place, timeout=10).close()
            self.ray.init(self.address or "local", log_to_driver=False, logging_level="error")
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ConnectionError(
                f"no Ray cluster at {self.address}: {reason} (one that is protected wants "
                "RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN here, too)"
            ) from None
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.device = self.device or ("cuda" if any("GPU" in node for node in nodes) else "cpu")
        room = [node.get("CPU", 0) // self.threads for node in nodes]
        if self.device == "cuda":
            self.compute = {"device": "cuda", "engine": "eager"}
            room = [min(n, node.get("GPU", 0)) for n, node in zip(room, nodes, strict=True)]
        if not sum(room):
            self.ray.shutdown()
            raise ValueError(
                f"no node of the cluster has {self.threads} CPUs, one for each thread"
                f"{', and a GPU' if self.compute else ''}: give fewer threads by OMP_NUM_THREADS"
            )
        self.actors = self.actors or int(sum(room))
        return self

    def __exit__(self, *exception: object) -> None:
        self.ray.shutdown()

    def outcomes(
        self, jobs: Sequence[Job], readings: Sequence[Reading], predict: Predict
    ) -> Iterator[Outcome]:
        """Outcomes as they come; "decode_error" for a video that kills `TRIES` actors."""
        ray, gpus = self.ray, int(self.device == "cuda")
        kind = ray.remote(Worker).options(num_cpus=self.threads, num_gpus=gpus)
        run = ray.put((readings, predict))
        settings = run, versions(), self.device, self.threads, self.decoders
        waiting = deque(jobs[n : n + self.videos] for n in range(0, len(jobs), self.videos))
        running, deaths = {}, Counter()

        def give(actor: Any, some: Sequence[Job]) -> None:
            running[actor.work.remote(some)] = actor, some

        for _ in range(min(self.actors, len(jobs))):
            give(kind.remote(*settings), ())  # no video waits for an actor that never starts
        try:
            while waiting or any(some for _, some in running.values()):
                (reference,), _ = ray.wait(list(running))
                actor, some = running.pop(reference)
                results = []
                try:
                    results = ray.get(reference)
                    if waiting:
                        give(actor, waiting.popleft())
                    else:
                        ray.kill(actor)
                except ray.exceptions.RayError as error:
                    self._check(error, deaths[()])
                    give(kind.remote(*settings), ())
                    deaths[tuple(some)] += 1
                    if deaths[tuple(some)] < TRIES:  # each video alone with its actor
                        waiting.extend((job,) for job in some)
                    elif some:
                        record = {"status": "decode_error", "note": DIED}
                        results = [(some[0], [record] * len(some[0].waiting), Counter(videos=1))]
                yield from results
        finally:
            for actor, _ in running.values():
                ray.kill(actor)

    def _check(self, error: Exception, broken: int) -> None:
        """Raises what is not the death of an actor at its work; so many did not even begin."""
        errors, reason = self.ray.exceptions, str(error).strip().splitlines()[-1]
        if isinstance(error, errors.RayTaskError):
            raise error.cause from None
        if "creation task" in str(error) or broken > TRIES * self.actors:
            raise ConnectionError(f"a node of the cluster cannot run co3d: {reason}") from None
        if not isinstance(error, tuple(getattr(errors, name) for name in DEATHS)):
            raise ConnectionError(
                f"the cluster failed ({reason}): run the same command again, it goes on where it "
                "stopped"
            ) from None


def engine(
    name: str, address: str | None = None, *, device: str | None = None, workers: int = 1
) -> AbstractContextManager[Local | Cluster]:
    """The engine of that name, "local" or "ray".

    Args:
        address: of a Ray cluster's head; None or "" starts one on this machine.
        device: as of `Cluster`; a local engine computes where its networks are.
        workers: processes that decode, of each actor.

    Raises:
        ValueError: for another name, or an address of a local engine.
    """
    if name == "ray":
        return Cluster(address or None, device=device, decoders=workers)
    if name == "local" and not address:
        return nullcontext(Local(workers))
    given = f"{name!r} with the address {address}" if address else repr(name)
    raise ValueError(f"expected engine local, or ray with or without an address, given {given}")
