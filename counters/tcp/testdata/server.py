"""The app of the tests: python3 server.py PORT BACKEND. It asks the backend when it may answer.

TLS_CERT and TLS_KEY in the environment are PEM files for TLS."""
import os, ssl, sys, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, backend = int(sys.argv[1]), sys.argv[2]
ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def wait(self, n):
        ask.open("http://%s/hold?id=%s" % (backend, n)).read()

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"ok")

    def do_GET(self):
        path, _, query = self.path.partition("?")
        ids = [part.partition("=")[2] for part in query.split("&")]
        if path == "/hold":
            self.wait(ids[0])
            self.answer(b"ok")
        elif path == "/download":
            self.answer(bytes(32 << 20))
        elif path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\ntick\n\r\n")
            for n in ids:
                self.wait(n)
                self.wfile.write(b"5\r\ntick\n\r\n")
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.answer(b"ok")

    def log_message(self, *message):
        if os.environ.get("LOG"):
            super().log_message(*message)


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


server = Server(("127.0.0.1", port), Handler)
if os.environ.get("TLS_CERT"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
    # The handshake is made by the thread of its connection.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
