"""FastAPI with OpenTelemetry's metrics, on the app's port; see counters/prometheus/recipes_test.go."""
import os
import urllib.request

from fastapi import FastAPI, Request
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import make_asgi_app, start_http_server

metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
app = FastAPI()
FastAPIInstrumentor.instrument_app(app)
if "METRICS_PORT" in os.environ:
    start_http_server(int(os.environ["METRICS_PORT"]), "127.0.0.1")
else:
    app.mount("/metrics", make_asgi_app())


@app.get("/")
def root():
    return "ok"


@app.get("/hold")
def hold(request: Request):
    with urllib.request.urlopen(f"{os.environ['BACKEND']}/hold?{request.url.query}") as answer:
        return answer.read().decode()
