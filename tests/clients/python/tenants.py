# redis-py and valkey-py as a user, plain and as cluster clients: says what they read of the key `k`.
import sys

import redis
import valkey

port, ca, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
for library, plain, cluster in [
    ("redis-py", redis.Redis, redis.RedisCluster),
    ("valkey-py", valkey.Valkey, valkey.ValkeyCluster),
]:
    for protocol in (2, 3):
        for kind in (plain, cluster):
            client = kind(
                host="127.0.0.1", port=port, ssl=True, ssl_ca_certs=ca,
                username=user, password=password, protocol=protocol,
            )
            print(library, kind.__name__, protocol, client.get("k").decode())
            client.close()
