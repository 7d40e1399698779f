"""What python_frameworks.py has Celery do."""

import os

from celery import Celery

app = Celery("celery_tasks", broker=os.environ["KEYWAY_URL"], backend=os.environ["KEYWAY_URL"])
# Celery's transactions name several keys of its own: the tag puts all of them into one slot.
app.conf.update(
    broker_transport_options={"global_keyprefix": "{celery}:"},
    result_backend_transport_options={"global_keyprefix": "{celery}:"},
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
)


@app.task
def add(left, right):
    return left + right


@app.task
def total(numbers):
    return sum(numbers)
