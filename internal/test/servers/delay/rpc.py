"""The server of grpcdelay on grpcio: rpc.py PORTS TLSPORTS CERTIFICATE KEY."""
import sys
import time
from concurrent import futures

import grpc

DONE = b"\x0a\x04done"  # a StringValue


def same(message):
    return message


def numbers(message):
    return [int(number) / 1000 for number in message[2:].split()]


def delay(message, _):
    time.sleep(numbers(message)[0])
    return DONE


def stream(message, _):
    for pause in numbers(message):
        yield DONE
        time.sleep(pause)
    yield DONE


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/lastcall.test/Delay":
            return grpc.unary_unary_rpc_method_handler(delay, same, same)
        if details.method == "/lastcall.test/Stream":
            return grpc.unary_stream_rpc_method_handler(stream, same, same)
        return None


with open(sys.argv[3], "rb") as cert, open(sys.argv[4], "rb") as key:
    credentials = grpc.ssl_server_credentials([(key.read(), cert.read())])
server = grpc.server(futures.ThreadPoolExecutor(200), options=[
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_ping_strikes", 0),
])
server.add_generic_rpc_handlers((Handler(),))
for port in sys.argv[1].split(","):
    server.add_insecure_port("0.0.0.0:" + port)
for port in sys.argv[2].split(","):
    server.add_secure_port("0.0.0.0:" + port, credentials)
server.start()
server.wait_for_termination()
