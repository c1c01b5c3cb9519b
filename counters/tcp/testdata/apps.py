"""Apps of the tests for uvicorn (asgi) and gunicorn (wsgi), and one of grpcio: python3 apps.py PORT."""
import sys


async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


if __name__ == "__main__":
    from concurrent import futures

    import grpc

    server = grpc.server(futures.ThreadPoolExecutor())
    server.add_insecure_port("127.0.0.1:" + sys.argv[1])
    server.start()
    server.wait_for_termination()
