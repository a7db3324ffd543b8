"""A server on this machine that answers as it is told, also wrongly."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers GET by `answer(handler)`; `asked` holds (method, path, headers)."""

    daemon_threads, block_on_close = True, False

    def __init__(self):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.server.asked.append((self.command, self.path, dict(self.headers)))
                try:
                    self.server.answer(self)
                except (BrokenPipeError, ConnectionResetError):  # the client has had enough
                    self.close_connection = True

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.answer = [], says(404)
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def say(handler, status, headers, body=b""):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def says(status=200, body=b"", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: say(handler, status, headers, body)


def serve(data, etag='"1"', cut=None, ranges=True, conditions=True, **headers):
    """An answer as it should be, but that it breaks off after `cut` bytes of the file."""

    def answer(handler):
        asked, common = handler.headers, {"ETag": etag, **headers} if etag else headers
        fresh = not conditions or asked.get("If-Range", etag) == etag
        start = int(asked.get("Range", "bytes=0-")[6:].split("-")[0])
        if "Range" not in asked or not ranges or not fresh:
            say(handler, 200, {"Content-Length": len(data)} | common, data[:cut])
        elif start >= len(data):
            say(handler, 416, {"Content-Range": f"bytes */{len(data)}"})
        else:
            where = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            where["Content-Length"] = len(data) - start
            say(handler, 206, where | common, data[start:cut])

    return answer
