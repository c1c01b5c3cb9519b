"""Lets the clients of a WSGI app leave while its pod drains, and tells Lastcall how many
requests the app works on. The class is a middleware for any server; the functions are
gunicorn's hooks, for gunicorn.conf.py."""

import os
import threading

DRAINING = os.environ.get("LASTCALL_DRAINING_FILE")
FOLDER = os.environ.get("LASTCALL_FILE_PATH")  # a file for each worker process

_current = threading.local()


class Leaving:
    """Wrap what does the app's work in it, and leave out what is asked by probes."""

    def __init__(self, app):
        self.app = app
        self.count = 0
        self.lock = threading.Lock()
        self.add(0)  # zero is said too: without a file the number is not known

    def __call__(self, environ, start_response):
        def start(*args):
            # WSGI keeps the header "Connection" to the server, so the server is asked.
            request = getattr(_current, "request", None)
            if request and is_draining():
                request.force_close()
            return start_response(*args)

        self.add(1)
        try:
            return _Answer(self.app(environ, start), self)
        except BaseException:
            self.add(-1)
            raise

    def add(self, n):
        with self.lock:
            self.count += n
            if FOLDER:
                # Whole, under another name first: a reader sees the old number or the new one.
                next_ = os.path.join(FOLDER, f".{os.getpid()}.tmp")
                with open(next_, "w") as file:
                    file.write(f"{self.count}\n")
                os.replace(next_, _file(os.getpid()))


class _Answer:
    """A request is in flight until the server has sent its answer, and closes it."""

    def __init__(self, body, leaving):
        self.body, self.leaving = body, leaving

    def __iter__(self):
        return iter(self.body)

    def close(self):
        try:
            if hasattr(self.body, "close"):
                self.body.close()
        finally:
            self.leaving.add(-1)


def is_draining():
    """A system call of a microsecond or two, so it is asked each time."""
    return bool(DRAINING) and os.path.exists(DRAINING)


def pre_request(worker, req):
    """In the worker, before each request."""
    _current.request = req


def on_starting(server):
    """In the master, once: what workers of an earlier life have left is no work."""
    if FOLDER:
        os.makedirs(FOLDER, exist_ok=True)
        for name in os.listdir(FOLDER):
            os.remove(os.path.join(FOLDER, name))


def child_exit(server, worker):
    """In the master, after a worker has ended, however it did: its work has, too."""
    if FOLDER:
        try:
            os.remove(_file(worker.pid))
        except FileNotFoundError:
            pass


def _file(pid):
    return os.path.join(FOLDER, str(pid))
