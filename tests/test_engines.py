"""How work is given to actors, without any cluster: a stand-in for Ray does it in this process."""

import itertools
from types import SimpleNamespace

import pytest

from co3d.measure import cluster, runs


class RayError(Exception):
    pass


class ActorError(RayError):
    pass


class TaskError(RayError):
    def __init__(self, cause):
        self.cause = cause


class Ray:
    """Does what actors are given when it is waited for; `does` says what comes of it."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=TaskError, **dict.fromkeys(cluster.DEATHS, ActorError)
    )

    def __init__(self, does):
        self.does, self.numbers, self.given, self.killed = does, itertools.count(), {}, 0
        self.most = 0

    def remote(self, kind):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self.actor))

    def actor(self, *_):
        actor = SimpleNamespace(number=next(self.numbers))

        def work(jobs, shared, code):
            reference = next(self.numbers)
            self.given[reference] = actor, jobs
            own = sum(where is actor for where, _ in self.given.values())
            self.most = max(self.most, own)
            return reference

        actor.work = SimpleNamespace(remote=work)
        return actor

    def put(self, value):
        return value

    def wait(self, references, timeout):
        assert references
        return [next((r for r in references if self._moves(r)), references[0])], []

    def _moves(self, reference):
        return self.does(self.given[reference][0], self.given[reference][1]) != "hangs"

    def get(self, reference):
        actor, jobs = self.given.pop(reference)
        found = self.does(actor, jobs)
        if isinstance(found, Exception):
            raise found
        return [runs.Outcome(job, [{"status": "ok"}], 0.0, 0.0) for job in jobs]

    def kill(self, actor):
        self.killed += 1


def outcomes(does, count=10, actors=2, videos=4):
    engine = object.__new__(cluster.Cluster)
    engine.ray, engine.device, engine.threads, engine.decoders = Ray(does), "cpu", 1, 1
    engine.actors, engine.videos = actors, videos
    engine.versions = cluster.versions("cpu")
    jobs = [runs.Job(f"v{n}", (0,)) for n in range(count)]
    found = {o.job.video: o.records[0] for o in engine.outcomes(jobs, [], None, {})}
    assert len(found) == count and engine.ray.killed == min(actors, count)
    return found, engine.ray


def test_every_video_comes_once_and_no_actor_has_more_than_it_can_begin():
    found, ray = outcomes(lambda actor, jobs: None, count=50)
    assert {record["status"] for record in found.values()} == {"ok"}
    assert ray.most == cluster.AHEAD


def test_a_task_that_kills_its_actor_is_split_and_only_its_video_has_a_status():
    def does(actor, jobs):
        return ActorError("died") if any(job.video == "v5" for job in jobs) else None

    found, _ = outcomes(does)
    assert found.pop("v5") == {"status": "decode_error", "note": cluster.DIED}
    assert {record["status"] for record in found.values()} == {"ok"}


def test_what_hangs_in_one_actor_is_given_to_another():
    found, _ = outcomes(lambda actor, jobs: "hangs" if actor.number == 1 else None, count=20)
    assert {record["status"] for record in found.values()} == {"ok"}


def test_faults_of_the_program_stop_the_run():
    with pytest.raises(LookupError, match="a fault"):
        outcomes(lambda actor, jobs: TaskError(LookupError("a fault")))
    with pytest.raises(ConnectionError, match="a node of the cluster cannot run co3d: no module"):
        outcomes(lambda actor, jobs: ActorError("in its creation task\nno module co3d"))


def test_a_cluster_that_fails_is_no_fault_of_a_video():
    with pytest.raises(ConnectionError, match=r"the cluster failed \(no answer\): run the same"):
        outcomes(lambda actor, jobs: RayError("no answer"))


def test_other_engines_are_refused():
    for name, address in (("slurm", None), ("local", "auto")):
        engine = cluster.engine(name, address)
        with pytest.raises(ValueError, match="expected engine local, or ray"), engine:
            pass
    with cluster.engine("local", workers=3) as engine:
        assert engine.workers == 3
