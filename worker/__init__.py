"""The night's work: the Celery app and its one task, dispatch and sweeping, alerts' delivery."""
