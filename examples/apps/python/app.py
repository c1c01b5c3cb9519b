"""Answers a POST when it has the whole body, and a GET at once. leaving.py has what it needs
for a drain."""

import os

from leaving import Leaving


def work(environ, start_response):
    n = len(environ["wsgi.input"].read())
    # The worker's process, to show which worker has answered.
    return answer(start_response, f"{n} bytes, worker {os.getpid()}\n")


def answer(start_response, text):
    body = text.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


counted = Leaving(work)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/ready": # not counted as work
        return answer(start_response, "ok\n")
    return counted(environ, start_response)
