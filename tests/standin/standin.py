"""An object store for tests: keys and bytes below STANDIN_ROOT, as a file system of fsspec.

Like a real one it knows no folders, only keys with slashes in them, tells sizes and MD5 sums, and
can fail: reads fail as many times as the file STANDIN_FAILS says.
"""

import hashlib
import os
from pathlib import Path

from fsspec.spec import AbstractFileSystem


class Store(AbstractFileSystem):
    protocol = "standin"
    cachable = False

    def _place(self, key):
        return Path(os.environ["STANDIN_ROOT"], self._strip_protocol(key))

    def _info(self, key, place):
        data = place.read_bytes()
        told = {"name": key, "type": "file", "size": len(data)}
        return told | {"md5": hashlib.md5(data).hexdigest()}

    def ls(self, path, detail=True, **_):
        base = self._place(path)
        found = base.iterdir() if base.is_dir() else [base] if base.is_file() else []
        rows = []
        for place in sorted(found):
            key = f"{self._strip_protocol(path)}/{place.name}" if base.is_dir() else path
            folder = {"name": key, "type": "directory", "size": 0}
            rows.append(folder if place.is_dir() else self._info(key, place))
        if not rows:
            raise FileNotFoundError(path)
        return rows if detail else [row["name"] for row in rows]

    def _open(self, path, mode="rb", **_):
        fails = Path(os.environ["STANDIN_ROOT"], "FAILS")
        left = int(fails.read_text()) if fails.is_file() else 0
        if left:
            fails.write_text(str(left - 1))
            raise TimeoutError("the store did not answer")
        return self._place(path).open("rb")
