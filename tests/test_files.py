"""Files come whole or stay as they were; links and pipes stay what they are."""

import os
import threading

import pytest

from co3d import files


def test_a_file_is_replaced_once_all_is_written(tmp_path):
    path = tmp_path / "new" / "a.txt"
    assert files.write(path, "one\n").read_bytes() == b"one\n"
    with pytest.raises(RuntimeError), files.replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one\n" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_links_are_written_through_and_pipes_directly(tmp_path):
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.touch()
    link.symlink_to(target)
    files.write(link, "text")
    assert link.is_symlink() and target.read_text() == "text"
    os.mkfifo(pipe)
    writer = threading.Thread(target=files.write, args=(pipe, b"bytes"))
    writer.start()
    assert pipe.read_bytes() == b"bytes"
    writer.join()
    assert pipe.is_fifo()
