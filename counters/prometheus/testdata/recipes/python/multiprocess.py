"""A WSGI app for several gunicorn workers, whose metrics are added by
prometheus_client's multiprocess mode; see counters/prometheus/recipes_test.go.

gunicorn -w 3 -c gunicorn_conf.py multiprocess:app, with PROMETHEUS_MULTIPROC_DIR
naming an empty folder.
"""
import os
import urllib.request

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

in_flight = Gauge("requests_in_flight", "Requests being worked on.", multiprocess_mode="livesum")
total = Counter("requests", "Requests that have come.")


def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        page = generate_latest(registry)
        start_response("200 OK", [("Content-Type", "text/plain; version=0.0.4"), ("Content-Length", str(len(page)))])
        return [page]
    total.inc()
    with in_flight.track_inprogress():
        body = b"ok"
        if environ["PATH_INFO"] == "/hold":
            with urllib.request.urlopen(f"{os.environ['BACKEND']}/hold?{environ['QUERY_STRING']}") as answer:
                body = answer.read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
