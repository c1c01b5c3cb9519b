"""FastAPI with prometheus-fastapi-instrumentator; see counters/prometheus/recipes_test.go."""
import os
import urllib.request

from fastapi import FastAPI, Request
from prometheus_fastapi_instrumentator import Instrumentator

app = FastAPI()
Instrumentator(should_instrument_requests_inprogress=True, inprogress_labels=True).instrument(app).expose(app)


@app.get("/")
def root():
    return "ok"


@app.get("/hold")
def hold(request: Request):
    with urllib.request.urlopen(f"{os.environ['BACKEND']}/hold?{request.url.query}") as answer:
        return answer.read().decode()
