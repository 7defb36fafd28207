"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "seedancee2.settings")

application = get_wsgi_application()

from seedancee2.console.checks import refuse_unsafe_start  # noqa: E402 - the apps must be loaded first

refuse_unsafe_start()
