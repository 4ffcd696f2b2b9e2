"""An HTTP server that does what a test tells it."""

import contextlib
import json
import socket
import threading
import time


def response(status=200, document=None, headers=(), body=None):
    """The bytes of a response."""
    data = json.dumps({} if document is None else document).encode() if body is None else body
    kind = "application/problem+json" if status >= 400 else "application/json"
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}"]
    if not any(name.lower() == "content-type" for name, _ in headers):
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def problem(status, code, headers=()):
    document = {"type": "", "title": "A title", "status": status, "detail": "the detail", "code": code}
    document["request_id"] = "r1"
    return response(status, document, headers)


class Request:
    """A request that arrived."""

    def __init__(self, method, path, headers, body, connection):
        self.method, self.path, self.headers, self.body, self.connection = method, path, headers, body, connection

    def json(self):
        return json.loads(self.body)


class StandIn:
    """Answers each request with the next entry of `script`, and with `otherwise` when it is empty.

    An entry is the bytes of a response, which may be incomplete, or a function of the request that returns them. After
    an entry `(bytes, "close")` the connection is closed. With `early`, the body is not read before the response.
    """

    def __init__(self, context=None, port=0):
        self.script, self.otherwise, self.requests, self.connections = [], response(), [], 0
        self.early, self.most, self.pause = False, 0, 0
        self._now, self._lock, self._sockets, self._stopping = 0, threading.Lock(), [], False
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.port}"

    def __enter__(self):
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_):
        # shutdown() wakes the thread that accepts. Only when it has ended may another socket get this one's number.
        self._stopping = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.drop()

    def drop(self):
        """Closes all connections."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
                if self._context:
                    sock = self._context.wrap_socket(sock, server_side=True)
            except OSError:
                if self._stopping:
                    return
                continue
            with self._lock:
                self.connections += 1
                self._sockets.append(sock)
                number = self.connections
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock, number):
        try:
            with sock, sock.makefile("rb") as file:
                while self._one(sock, file, number):
                    pass
        except (OSError, ValueError):
            pass

    def _one(self, sock, file, number):
        line = file.readline().decode()
        if not line:
            return False
        method, path, _ = line.split()
        headers = {}
        while True:
            name, _, value = file.readline().decode().strip().partition(":")
            if not name:
                break
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        body = b"" if self.early else file.read(length)
        request = Request(method, path, headers, body, number)
        time.sleep(self.pause)
        with self._lock:
            self._now -= 1
            self.requests.append(request)
            entry = self.script.pop(0) if self.script else self.otherwise
        close = False
        if isinstance(entry, tuple):
            entry, close = entry[0], True
        sock.sendall(entry(request) if callable(entry) else entry)
        return not close
