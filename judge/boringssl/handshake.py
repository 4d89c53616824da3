"""Mutual TLS between two gRPC peers with one certificate and one set of roots: JSON lines in, JSON lines out.

A line in has the key, the chain that both show and the roots that both trust, in PEM; a line out has why they did not
come together, or null.
"""

import json
import sys
from concurrent import futures

import grpc

METHOD = "/judge/Shake"


def shake(asked):
    key, chain, roots = (asked[name].encode() for name in ("key", "chain", "roots"))
    server = grpc.server(futures.ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("judge", {"Shake": handler}),))
    # Both sides verify.
    shown = grpc.ssl_server_credentials([(key, chain)], root_certificates=roots, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", shown)
    server.start()
    try:
        credentials = grpc.ssl_channel_credentials(root_certificates=roots, private_key=key, certificate_chain=chain)
        options = [("grpc.ssl_target_name_override", asked["name"]), ("grpc.enable_http_proxy", 0)]
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
            channel.unary_unary(METHOD)(b"", timeout=20)
        return None
    except grpc.RpcError as error:
        return error.details()
    finally:
        server.stop(None)


for line in sys.stdin:
    print(json.dumps(shake(json.loads(line))), flush=True)
