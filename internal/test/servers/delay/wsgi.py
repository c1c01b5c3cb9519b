"""Answers /delay/MS after MS milliseconds, on gunicorn: gunicorn wsgi:app."""
import time


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/delay/"):
        time.sleep(int(path[len("/delay/"):]) / 1000)
    start_response("200 OK", [("Content-Length", "4")])
    return [b"done"]
