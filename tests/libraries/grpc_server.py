"""A gRPC server whose only method waits: ``python -m tests.libraries.grpc_server``."""

import json
import time
from concurrent import futures

import grpc

from . import SECONDS


def _slow(request, context):
    time.sleep(SECONDS)
    return b"ok"


def main():
    server = grpc.server(futures.ThreadPoolExecutor(64))
    methods = {"Slow": grpc.unary_unary_rpc_method_handler(_slow)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.T", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"grpc": port}), flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
