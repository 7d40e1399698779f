"""Pipelines as redis-py and valkey-py have them by default, which are transactions: keys in many slots.

Usage: pipelines.py PORT CA
"""

import sys

import redis
import valkey

port, ca = int(sys.argv[1]), sys.argv[2]

for library, client, lost in (("redis-py", redis.Redis, redis.ResponseError), ("valkey-py", valkey.Valkey, valkey.ResponseError)):
    for protocol in (2, 3):
        connection = client(host="127.0.0.1", port=port, ssl=True, ssl_ca_certs=ca, protocol=protocol, decode_responses=True)
        values = {f"{library}:{protocol}:{number}": f"value {number}" for number in range(300)}
        with connection.pipeline() as pipeline:
            for key, value in values.items():
                pipeline.set(key, value, ex=60)
            assert pipeline.execute() == [True] * 300
        # As Django's cache writes several with a time to live.
        with connection.pipeline() as pipeline:
            pipeline.mset(values)
            for key in values:
                pipeline.expire(key, 60)
            pipeline.mget(list(values))
            assert pipeline.execute() == [True] * 301 + [list(values.values())]
        with connection.pipeline() as pipeline:
            pipeline.incr(f"{library}:{protocol}:0").get(f"{library}:{protocol}:1").delete(*values)
            found = pipeline.execute(raise_on_error=False)
        assert isinstance(found[0], lost) and found[1:] == ["value 1", 300], found
        # What is watched is not cut.
        with connection.pipeline() as pipeline:
            pipeline.watch("a")
            pipeline.multi()
            pipeline.set("a", 1).set("b", 2)
            try:
                pipeline.execute()
                raise SystemExit("a watched transaction over several slots ran")
            except lost as error:
                assert "same slot" in str(error), error
        print(library, protocol, "ok")
