"""A redis-py whose pipelines are no transactions unless asked to be: their keys may be in any slots."""

import redis


class Redis(redis.Redis):
    def pipeline(self, transaction=False, shard_hint=None):
        return super().pipeline(transaction, shard_hint)
