"""Python frameworks through Keyway, each with nothing but what docs/frameworks.md tells to set.

Prints a line for each and exits with 1 when one does not do what it should.
"""

import argparse
import os
import subprocess
import sys
import time
import traceback

import redis

ARGS = argparse.ArgumentParser()
ARGS.add_argument("--port", type=int, required=True)
ARGS.add_argument("--ca", required=True)

FRAMEWORKS = []


def framework(check):
    FRAMEWORKS.append(check)
    return check


def url():
    return f"rediss://127.0.0.1:{PORT}/0?ssl_cert_reqs=required&ssl_ca_certs={CA}"


def client():
    return redis.Redis(host="127.0.0.1", port=PORT, ssl=True, ssl_ca_certs=CA)


def same(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r}, not {expected!r}")


@framework
def celery():
    from celery import chain, chord, group

    import celery_tasks as tasks

    command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "celery_tasks", "worker", "-c", "2", "-l", "error"]
    worker = subprocess.Popen(command, cwd=os.path.dirname(os.path.abspath(__file__)), stdout=subprocess.DEVNULL)
    try:
        same(tasks.add.delay(1, 2).get(timeout=60), 3)
        many = group(tasks.add.s(i, i) for i in range(50))
        same(many().get(timeout=60), [2 * i for i in range(50)])
        same(chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4))().get(timeout=60), 10)
        same(chord((tasks.add.s(i, 1) for i in range(30)), tasks.total.s())().get(timeout=60), 465)
        same(tasks.add.apply_async((5, 6), countdown=1).get(timeout=60), 11)
        same(tasks.add.apply_async((7, 8), priority=5).get(timeout=60), 15)
        same(list(tasks.app.control.inspect(timeout=10, limit=1).ping().values()), [{"ok": "pong"}])
    finally:
        worker.terminate()
        worker.wait(30)


@framework
def dramatiq():
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker = RedisBroker(url=url(), namespace="{dramatiq}")
    broker.add_middleware(Results(backend=RedisBackend(url=url())))
    dramatiq.set_broker(broker)

    @dramatiq.actor(store_results=True)
    def square(number):
        return number * number

    sent = [square.send(number) for number in range(20)]
    delayed = square.send_with_options(args=(30,), delay=500)
    worker = dramatiq.Worker(broker, worker_threads=2)
    worker.start()
    try:
        got = [message.get_result(block=True, timeout=60_000) for message in [*sent, delayed]]
        same(got, [*(number * number for number in range(20)), 900])
    finally:
        worker.stop()


@framework
def huey():
    from huey import RedisHuey

    queue = RedisHuey("shop", url=url())

    @queue.task()
    def double(number):
        return 2 * number

    results = [double(number) for number in range(20)]
    later = double.schedule((21,), delay=1)
    consumer = queue.create_consumer(workers=2)
    consumer.start()
    try:
        same([result.get(blocking=True, timeout=60) for result in results], list(range(0, 40, 2)))
        same(later.get(blocking=True, timeout=60), 42)
    finally:
        consumer.stop(graceful=True)


@framework
def django():
    from django.conf import settings

    settings.configure(
        CACHES={
            "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url()},
            "django-redis": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": url(),
                "KEY_PREFIX": "own",
                "OPTIONS": {"REDIS_CLIENT_CLASS": "no_transactions.Redis"},
            },
        },
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
    )
    import django as django_itself

    django_itself.setup()
    from django.contrib.sessions.backends.cache import SessionStore
    from django.core.cache import caches

    for name in ("default", "django-redis"):
        cache = caches[name]
        for number in range(20):
            cache.set(f"k{number}", number, timeout=60)
        same(sum(cache.get_many([f"k{number}" for number in range(20)]).values()), 190)
        same(cache.incr("k3"), 4)
        same(cache.touch("k4", 60), True)
        same(cache.add("k4", 1), False)
        cache.delete_many(["k1", "k2"])
        same(cache.get("k1", "none"), "none")
        # With a time to live it is a transaction: its keys have to share a slot.
        several = {"{cart}a": 1, "{cart}b": 2} if name == "default" else {f"m{number}": 1 for number in range(9)}
        cache.set_many(several, timeout=60)
        same(cache.get_many(several), several)
    same(len(list(caches["django-redis"].iter_keys("m*"))), 9)
    same(caches["django-redis"].delete_pattern("m*"), 9)
    with caches["django-redis"].lock("door", timeout=10):
        pass
    session = SessionStore()
    session["name"] = "Ada"
    session.save()
    same(SessionStore(session.session_key)["name"], "Ada")
    caches["default"].clear()


@framework
def limits():
    from limits import parse, storage, strategies

    store = storage.RedisStorage(url())
    for number, strategy in enumerate(
        (
            strategies.FixedWindowRateLimiter,
            strategies.MovingWindowRateLimiter,
            strategies.SlidingWindowCounterRateLimiter,
        )
    ):
        limiter = strategy(store)
        hits = [limiter.hit(parse("3/hour"), f"user-{number}") for _ in range(5)]
        same(hits, [True, True, True, False, False])


@framework
def redis_py_lock_and_pipeline():
    one = client()
    lock = one.lock("lock", timeout=10)
    same(lock.acquire(blocking=False), True)
    same(one.lock("lock", timeout=10).acquire(blocking=False), False)
    lock.release()
    pipe = one.pipeline(transaction=False)
    for number in range(50):
        pipe.set(f"p{number}", number)
    same(pipe.execute(), [True] * 50)


def main():
    global PORT, CA
    args = ARGS.parse_args()
    PORT, CA = args.port, args.ca
    os.environ["KEYWAY_URL"] = url()
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    failed = 0
    for check in FRAMEWORKS:
        began = time.monotonic()
        try:
            check()
            print(f"ok: {check.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED: {check.__name__}\n{traceback.format_exc()}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
