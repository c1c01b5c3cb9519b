"""A slow app that takes 0.1 to 2 seconds for each request. leaving.py has what it needs for a drain."""

import random
import time

from leaving import Leaving


def work(environ, start_response):
    environ["wsgi.input"].read()
    time.sleep(random.uniform(0.1, 2))
    return answer(start_response, "done\n")


def answer(start_response, text):
    body = text.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


counted = Leaving(work)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/ready": # not counted as work
        return answer(start_response, "ok\n")
    return counted(environ, start_response)
