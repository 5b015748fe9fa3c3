"""Takes OTLP logs over HTTP with OpenTelemetry's own messages, strictly; prints each request as a line of JSON."""

import gzip
import http.server
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs


def say(what):
    # In one piece: requests come in several threads.
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        request, status, answer = logs.ExportLogsServiceRequest(), 200, b""
        try:
            if self.path != "/v1/logs":
                raise ValueError("no such path: " + self.path)
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if kind == "application/json":
                json_format.Parse(body, request)
                answer = b"{}"
            elif kind == "application/x-protobuf":
                request.ParseFromString(body)
            else:
                raise ValueError("no such content type: " + kind)
            say({"kind": kind, "request": json_format.MessageToDict(request)})
        except Exception as error:
            say({"error": str(error)})
            status, answer = 400, str(error).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
