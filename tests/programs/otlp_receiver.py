"""Takes OTLP logs and metrics, over HTTP at one port and gRPC at another, with OpenTelemetry's own messages, strictly; prints each
request as a line of JSON. The first so many calls of gRPC find it overloaded; with a directory that has cert.pem and key.pem, gRPC is
encrypted."""

import concurrent.futures
import gzip
import http.server
import json
import sys
import threading

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc

REQUESTS = {"/v1/logs": logs.ExportLogsServiceRequest, "/v1/metrics": metrics.ExportMetricsServiceRequest}


def say(what):
    # In one piece: requests come in several threads.
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def taken(kind, request):
    say({"kind": kind, "request": json_format.MessageToDict(request)})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        status, answer = 200, b""
        try:
            request = REQUESTS[self.path]()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if kind == "application/json":
                json_format.Parse(body, request)
                answer = b"{}"
            elif kind == "application/x-protobuf":
                request.ParseFromString(body)
            else:
                raise ValueError("no such content type: " + kind)
            taken(self.path + " " + kind, request)
        except Exception as error:
            say({"error": repr(error)})
            status, answer = 400, str(error).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Calls:
    def __init__(self, kind, answer, refused):
        self.kind, self.answer, self.refused = kind, answer, refused

    def Export(self, request, context):
        if self.refused.acquire(blocking=False):
            taken("grpc refused", request)
            context.abort(grpc.StatusCode.UNAVAILABLE, "overloaded")
        taken(self.kind, request)
        return self.answer()


http_port, grpc_port, refusals = map(int, sys.argv[1:4])
certificates = sys.argv[4] if len(sys.argv) > 4 else None


def pem(name):
    with open(f"{certificates}/{name}.pem", "rb") as file:
        return file.read()


refused = threading.Semaphore(refusals)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=4))
logs_grpc.add_LogsServiceServicer_to_server(Calls("grpc logs", logs.ExportLogsServiceResponse, refused), server)
metrics_grpc.add_MetricsServiceServicer_to_server(
    Calls("grpc metrics", metrics.ExportMetricsServiceResponse, refused), server
)
if certificates:
    credentials = grpc.ssl_server_credentials([(pem("key"), pem("cert"))])
    server.add_secure_port(f"127.0.0.1:{grpc_port}", credentials)
else:
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
server.start()
http.server.ThreadingHTTPServer(("127.0.0.1", http_port), Handler).serve_forever()
