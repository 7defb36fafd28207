"""Seedancee2: video generation behind one stable API."""

from seedancee2.celery import app as celery_app

__all__ = ["celery_app"]
