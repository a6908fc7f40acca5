"""The Celery app: slide ids over Redis, JSON only, one slide at a time, late acknowledgement."""

from __future__ import annotations

from celery import Celery
from kombu import Queue

from db.models import Priority
from smearwatch.settings import Settings

TASK = "smearwatch.analyse"  # the one task: a slide's id
HARD_TIME_LIMIT_S = 600  # of one slide; 200 cells take seconds
VISIBILITY_TIMEOUT_S = 900  # longer, so that Redis never gives away a slide still worked on


def make_app(broker_url: str) -> Celery:
    """An app on one broker; PostgreSQL holds every result, so there is no result backend."""
    app = Celery("smearwatch", broker=broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=HARD_TIME_LIMIT_S,
        task_queues=[Queue(priority.value) for priority in Priority],  # stat first
        task_default_queue=Priority.ROUTINE.value,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_proc_alive_timeout=120,  # the child loads the model before it says that it lives
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # READONLY and OOM pass; the worker waits for that
        worker_cancel_long_running_tasks_on_connection_loss=False,  # PostgreSQL holds the slide
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "queue_order_strategy": "priority",  # stat is emptied before routine
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
    )
    return app


def app_from(settings: Settings) -> Celery:
    """The app on the configured broker."""
    return make_app(settings.broker())
