"""gunicorn's configuration for multiprocess.py."""
from prometheus_client import multiprocess


def child_exit(server, worker):
    """What a worker had in flight when it died is no work any more."""
    multiprocess.mark_process_dead(worker.pid)
