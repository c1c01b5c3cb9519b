import os

from leaving import child_exit, on_starting, pre_request  # noqa: F401 (gunicorn's hooks)

bind = f"0.0.0.0:{os.environ['PORT']}"
workers = 2
worker_class = "gthread"  # the class "sync" closes each connection anyway
threads = 4
keepalive = 75
