"""What every example shares: where Keyway is, from the command line, and how to connect to it."""

import argparse

import valkey
from valkey.backoff import ExponentialBackoff
from valkey.retry import Retry


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6390)
    parser.add_argument("--read-port", type=int)
    parser.add_argument("--ca", default="/tmp/keyway-demo/ca.pem")
    return parser.parse_args()


def connect(args, port=None, **more):
    """One client with a pool of connections: make it once, at the start, and keep it."""
    settings = {
        "host": args.host,
        "port": port or args.port,
        "ssl": True,
        "ssl_ca_certs": args.ca,
        "decode_responses": True,
        "socket_timeout": 20,
        "socket_connect_timeout": 10,
        "socket_keepalive": True,
        "retry": Retry(ExponentialBackoff(cap=1, base=0.05), 3),
    }
    return valkey.Valkey(**{**settings, **more})


def clean(client, prefix):
    """Removes what an earlier run left."""
    for key in client.scan_iter(match=f"{prefix}*", count=1000):
        client.delete(key)
