"""Answers a POST when it has all of its body, and a GET at once. What leaves well is in
leaving.py."""

import os

from leaving import Leaving


def work(environ, start_response):
    n = len(environ["wsgi.input"].read())
    # The worker's process, so that one can see which has answered.
    return answer(start_response, f"{n} bytes, worker {os.getpid()}\n")


def answer(start_response, text):
    body = text.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


counted = Leaving(work)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/ready":  # not work
        return answer(start_response, "ok\n")
    return counted(environ, start_response)
