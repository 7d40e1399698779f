"""redis-py: `Redis` and `RedisCluster`, in RESP2 and RESP3."""

import python_client
import redis
import suite

python_client.run_all(suite.arguments(), "redis-py", redis, redis.Redis, redis.RedisCluster)
