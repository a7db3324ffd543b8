"""Jobs in processes: order, crashes, time and memory; a job that fails ends alone."""

import os
import signal
import time

import pytest

from co3d.measure.workers import Failure, in_processes


def job(kind):
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(60)
    if kind == "memory":
        return len(bytearray(3 * 2**30))
    if kind == "wrong":
        raise LookupError("a fault of the program")
    return kind


def test_each_job_fails_alone_and_in_order():
    jobs = [1, "crash", 2, "hang", 3, "memory", 4]
    found = list(in_processes(job, jobs, count=2, seconds=3, memory=2**30))
    assert [one for one in found if not isinstance(one, Failure)] == [1, 2, 3, 4]
    crash, hang, memory = found[1::2]
    assert (crash.status, hang.status, memory.status) == ("decode_error", "timeout", "decode_error")
    assert "died" in crash.note and "3 s" in hang.note and "1 GiB" in memory.note


def test_faults_of_the_program_are_not_hidden():
    with pytest.raises(LookupError, match="a fault"):
        list(in_processes(job, [1, "wrong"]))


def test_jobs_are_taken_as_results_are():
    taken = []

    def jobs():
        for n in range(50):
            taken.append(n)
            yield n

    results = in_processes(job, jobs())
    assert next(results) == 0 and len(taken) <= 4
    results.close()
