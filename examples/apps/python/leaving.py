"""Asks the clients of a WSGI app to disconnect while its pod drains, and reports to Lastcall
how many requests the app is handling. The class is a middleware for any server; the functions
are gunicorn's hooks, for gunicorn.conf.py."""

import os
import threading

DRAINING = os.environ.get("LASTCALL_DRAINING_FILE")
FOLDER = os.environ.get("LASTCALL_FILE_PATH") # one file for each worker process

_current = threading.local()


class Leaving:
    """Wrap the app's work in it, but not the endpoints of probes."""

    def __init__(self, app):
        self.app = app
        self.count = 0
        self.lock = threading.Lock()
        self.add(0) # write zero too: without a file the number is unknown

    def __call__(self, environ, start_response):
        def start(*args):
            # WSGI apps cannot set the header "Connection", but the server can.
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
                # Replaced atomically: a reader sees either the old or the new
                # number.
                next_ = os.path.join(FOLDER, f".{os.getpid()}.tmp")
                with open(next_, "w") as file:
                    file.write(f"{self.count}\n")
                os.replace(next_, _file(os.getpid()))


class _Answer:
    """A request is in flight until the server has sent its answer and closes it."""

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
    """Makes a system call of a microsecond or two, so it can be called for each answer."""
    return bool(DRAINING) and os.path.exists(DRAINING)


def pre_request(worker, req):
    """Runs in the worker, before each request."""
    _current.request = req


def on_starting(server):
    """Runs in the master, once: files of workers of an earlier run are not work in flight."""
    if FOLDER:
        os.makedirs(FOLDER, exist_ok=True)
        for name in os.listdir(FOLDER):
            os.remove(os.path.join(FOLDER, name))


def child_exit(server, worker):
    """Runs in the master, after a worker has ended for any reason: its work has ended too."""
    if FOLDER:
        try:
            os.remove(_file(worker.pid))
        except FileNotFoundError:
            pass


def _file(pid):
    return os.path.join(FOLDER, str(pid))
