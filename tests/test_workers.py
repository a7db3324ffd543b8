"""Jobs in processes: order, crashes, time and memory; a job that fails ends alone."""

import os
import signal
import time

import pytest
import torch

from co3d.measure.workers import Failure, Processes


def job(kind):
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(60)
    if kind == "memory":
        return len(bytearray(3 * 2**30))
    if kind == "torch":
        return torch.zeros(2**29).numel()
    if kind == "wrong":
        raise LookupError("a fault of the program")
    return kind


def results(jobs, **options):
    with Processes(**options) as processes:
        yield from processes.results(job, jobs)


def test_each_job_fails_alone_and_in_order():
    jobs = [1, "crash", 2, "hang", 3, "memory", 4, "torch"]
    done = list(results(jobs, count=2, seconds=5, memory=2**30))
    assert [result for result in done if not isinstance(result, Failure)] == [1, 2, 3, 4]
    crash, hang, memory, tensor = done[1::2]
    assert (crash.status, hang.status, memory.status) == ("decode_error", "timeout", "decode_error")
    assert "died" in crash.note and "5 s" in hang.note and "1 GiB" in memory.note
    assert tensor == memory


def test_faults_of_the_program_are_not_hidden():
    with pytest.raises(LookupError, match="a fault"):
        list(results([1, "wrong"]))


def test_jobs_are_taken_as_results_are():
    taken = []

    def jobs():
        for n in range(50):
            taken.append(n)
            yield n

    running = results(jobs())
    assert next(running) == 0 and len(taken) <= 4
    running.close()
