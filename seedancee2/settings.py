"""Settings, read from the environment (see .env.example); grouped by topic."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import environ
from celery.schedules import crontab
from django.templatetags.static import static

from seedancee2.lib import storage_urls
from seedancee2.lib.database import PatientConnection

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
if "DATABASE_URL" not in os.environ:
    # Where nothing is configured, commands act on the system that `make run` started in this checkout.
    from seedancee2.local import addresses

    for _name, _value in addresses.read().items():
        os.environ.setdefault(_name, _value)
environ.Env.read_env(BASE_DIR / ".env")

# --- What kind of machine this is. LOCAL_MODE is set by `make run` and the tests, never in production. ---
DEBUG = env.bool("DEBUG", default=False)
LOCAL_MODE = env.bool("LOCAL_MODE", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
PUBLIC_BASE_URL = env.str("PUBLIC_BASE_URL", default="http://127.0.0.1:8000").rstrip("/")
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[PUBLIC_BASE_URL])

# --- Apps, in the order of the import contract, lowest last. ---
INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "django_htmx",
    "csp",
    "pgtrigger",
    "seedancee2",
    "seedancee2.console",
    "generations",
    "webhooks",
    "providers",
    "billing",
    "accounts",
]

MIDDLEWARE = [
    "seedancee2.lib.requestlog.RequestLogMiddleware",
    "seedancee2.console.health.HealthMiddleware",
    "seedancee2.api.middleware.PublicApiMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "seedancee2.console.staff_policy.StaffPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.audit.AuditMiddleware",
    "accounts.sessions.LastSeenMiddleware",
    "accounts.staff_sessions.StaffSessionMiddleware",
    "accounts.console_visits.VisitMiddleware",
    "accounts.second_factor.StaffMiddleware",
    "accounts.staff_addresses.StaffAddressMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

# What a request under /v1 passes after PublicApiMiddleware, in place of all that follows it above.
API_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "accounts.audit.AuditMiddleware",
]

ROOT_URLCONF = "seedancee2.urls"
WSGI_APPLICATION = "seedancee2.wsgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- PostgreSQL holds every fact. ---
DATABASES = {"default": env.db_url("DATABASE_URL", default="postgres://localhost/seedancee2")}
if DATABASES["default"]["ENGINE"].endswith("postgresql"):  # a check refuses anything else, with a hint
    DATABASES["default"] |= {
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,  # a pooled connection may have died with a restarted server
        "OPTIONS": {
            "pool": {
                "min_size": 1,
                "max_size": env.int("DATABASE_POOL_SIZE", default=10),
                "timeout": 2.0,
                "connection_class": PatientConnection,
            },
            "connect_timeout": 2,
            "prepare_threshold": 2**31,  # only what asks for it is prepared (statements.planned_once)
            "options": "-c lock_timeout=2s -c statement_timeout=5s -c idle_in_transaction_session_timeout=10s",
        },
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Seconds until a silent server counts as gone: long for workers, short for the web (see gunicorn.py).
DATABASE_PATIENCE_SECONDS = env.float("DATABASE_PATIENCE_SECONDS", default=20.0)

# --- Redis carries wake-ups and rate limits; it may be lost at any time. ---
REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
CACHES = {
    "default": {
        "BACKEND": "seedancee2.lib.cache.Cache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "cache",
        "OPTIONS": {"socket_timeout": 0.2, "socket_connect_timeout": 0.2},
    }
}

CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # Redis may be away for as long as it likes
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Measured: an acknowledgement that Redis did not take leaves a worker deaf for minutes. A wake-up needs none.
    "ack_emulation": False,
    # Measured: without socket_timeout a worker never notices a half-open connection.
    "socket_timeout": 2,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 5,
}
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_SOFT_TIME_LIMIT = 240
CELERY_TASK_TIME_LIMIT = 300
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "generations.submit": {"queue": "submit"},
    "generations.poll": {"queue": "poll"},
    "generations.settle": {"queue": "settle"},
    "webhooks.deliver": {"queue": "deliver"},
}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_MAX_TASKS_PER_CHILD = 5000
CELERY_WORKER_ETA_TASK_LIMIT = 100
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# Signs of life have their own way (heartbeats.py); each connection less is one less to go half-open.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BEAT_SCHEDULER = "seedancee2.lib.heartbeats.Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
# A sweep that nobody took within a few seconds is worthless: the next one does the same.
_EVERY_SECOND = {"schedule": 1.0, "options": {"expires": 3}}
CELERY_BEAT_SCHEDULE = {
    "submit": {"task": "generations.submit", **_EVERY_SECOND},
    "poll": {"task": "generations.poll", **_EVERY_SECOND},
    "settle": {"task": "generations.settle", **_EVERY_SECOND},
    "deliver": {"task": "webhooks.deliver", **_EVERY_SECOND},
    "late": {"task": "generations.late", "schedule": 30.0, "options": {"expires": 30}},
    "deadlines": {"task": "generations.deadlines", "schedule": 5.0, "options": {"expires": 10}},
    "tell": {"task": "billing.tell", "schedule": 30.0, "options": {"expires": 30}},
    "end-visits": {"task": "accounts.end_visits", "schedule": 60.0, "options": {"expires": 60}},
    "notify": {"task": "webhooks.notify", "schedule": 60.0, "options": {"expires": 60}},
    "give-up": {"task": "webhooks.give_up", "schedule": 300.0, "options": {"expires": 300}},
    "delete-files": {"task": "generations.delete_files", "schedule": 60.0, "options": {"expires": 60}},
    "purge": {"task": "generations.purge", "schedule": 3600.0, "options": {"expires": 3600}},
    "count-usage": {"task": "generations.count_usage", "schedule": 60.0, "options": {"expires": 60}},
    "reconcile": {"task": "generations.reconcile", "schedule": 300.0, "options": {"expires": 600}},
    "reconcile-all": {
        "task": "generations.reconcile",
        "schedule": crontab(hour=3, minute=20),
        "kwargs": {"is_whole": True},
        "options": {"expires": 3600},
    },
}

# --- Tasks and media. ---
TASK_DEADLINE_SECONDS = env.int("TASK_DEADLINE_SECONDS", default=3600)
MEDIA_BASE_URL = env.str("MEDIA_BASE_URL", default=f"{PUBLIC_BASE_URL}/media").rstrip("/")
MEDIA_STORAGE_URL = env.str("MEDIA_STORAGE_URL", default=f"file://{BASE_DIR / 'var' / 'media'}")
STORAGES = {
    "default": storage_urls.storage_for(MEDIA_STORAGE_URL),
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if LOCAL_MODE or DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "var" / "static"
WHITENOISE_USE_FINDERS = LOCAL_MODE or DEBUG

# Credits that one member of the staff may adjust alone; above it a second one must approve.
ADJUSTMENT_LIMIT = env.int("ADJUSTMENT_LIMIT", default=10_000)

# --- Outbound HTTP: hosts that may be reached although their address is private. Empty in production. ---
OUTBOUND_ALLOWED_HOSTS = env.list("OUTBOUND_ALLOWED_HOSTS", default=[])

# --- Secrets at rest. Without values of their own they derive from SECRET_KEY. ---
FIELD_ENCRYPTION_KEYS = env.list("FIELD_ENCRYPTION_KEYS", default=[])
API_KEY_PEPPER = env.str("API_KEY_PEPPER", default="")

# --- The public API. ---
# Requests a minute for one key, unless its organization or the key itself has its own.
RATE_LIMIT_CREATES = env.int("RATE_LIMIT_CREATES", default=600)
RATE_LIMIT_REQUESTS = env.int("RATE_LIMIT_REQUESTS", default=6000)
API_MAX_BODY_BYTES = 256 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.authentication.KeyHasScope"],
    "DEFAULT_RENDERER_CLASSES": ["seedancee2.api.rendering.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["seedancee2.api.parsing.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "seedancee2.api.schema.AutoSchema",
    "EXCEPTION_HANDLER": "seedancee2.api.handler.handle",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Seedancee2 Enterprise API",
    "VERSION": "1.0.0",
    "DESCRIPTION": (
        "Video generation behind one stable API: three models, credits, asynchronous tasks and webhooks.\n\n"
        "Every error, whatever its status, has the same body: a stable `code` and `type`, and a `message` for people. "
        "Times are UTC; credits are integers. A path that does not exist gives 404 `not_found`, a method that a path "
        "does not have 405 `method_not_allowed`."
    ),
    "OAS_VERSION": "3.1.1",
    "SERVERS": [{"url": PUBLIC_BASE_URL}],
    "EXTERNAL_DOCS": {"url": f"{PUBLIC_BASE_URL}/docs", "description": "The documentation, with a quickstart"},
    "TAGS": [
        {"name": "Video tasks", "description": "Create video tasks, and see what became of them."},
        {"name": "Models", "description": "The models that can be named in a request."},
        {"name": "Usage", "description": "Jobs and credits, summed."},
        {"name": "Webhooks", "description": "What is sent to the `callback_url` of a task."},
    ],
    "WEBHOOKS": ["generations.openapi.COMPLETED_WEBHOOK", "generations.openapi.FAILED_WEBHOOK"],
    "SCHEMA_PATH_PREFIX": "/v1",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "PREPROCESSING_HOOKS": ["seedancee2.api.schema.only_public_paths"],
    # Enumerations stay where they are used: components of their own would get names nobody chose.
    "POSTPROCESSING_HOOKS": ["generations.openapi.finish"],
}

# --- People: sign-in by e-mail. ---
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
ACCOUNT_ADAPTER = "accounts.signin.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "optional" if LOCAL_MODE else "mandatory"
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True  # only in the browser that signed up, and once
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_MAX_EMAIL_ADDRESSES = 5
ACCOUNT_FORMS = {
    "login": "accounts.signin_forms.LoginForm",
    "signup": "accounts.signin_forms.SignupForm",
    "add_email": "accounts.signin_forms.AddEmailForm",
    "change_password": "accounts.signin_forms.ChangePasswordForm",
    "set_password": "accounts.signin_forms.SetPasswordForm",
    "reset_password": "accounts.signin_forms.ResetPasswordForm",
    "reset_password_from_key": "accounts.signin_forms.NewPasswordForm",
    "reauthenticate": "accounts.signin_forms.ConfirmPasswordForm",
}
# May anyone sign up? Those who were invited always may, with the address that the invitation went to.
SIGNUP_OPEN = env.bool("SIGNUP_OPEN", default=LOCAL_MODE)
# Does a sign-up make an organization of one's own? If not, newcomers wait until somebody invites them.
SIGNUP_MAKES_ORGANIZATION = env.bool("SIGNUP_MAKES_ORGANIZATION", default=True)
# Credits given to the organization that a sign-up makes.
SIGNUP_CREDITS = env.int("SIGNUP_CREDITS", default=1_000 if LOCAL_MODE else 0)
MFA_ADAPTER = "accounts.signin.MfaAdapter"
MFA_FORMS = {
    "authenticate": "accounts.signin_forms.CodeForm",
    "reauthenticate": "accounts.signin_forms.ConfirmCodeForm",
    "activate_totp": "accounts.signin_forms.ActivateAppForm",
    "add_webauthn": "accounts.signin_forms.AddPasskeyForm",
    "edit_webauthn": "accounts.signin_forms.RenamePasskeyForm",
}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "Seedancee2"
MFA_TOTP_TOLERANCE = 1  # half a minute: for clocks that differ, and for whoever types slowly (RFC 6238, 5.2)
MFA_ALLOW_UNVERIFIED_EMAIL = LOCAL_MODE  # locally no mail is read
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = LOCAL_MODE  # http://localhost
# Whether the staff must have a second factor to enter the admin.
STAFF_NEEDS_SECOND_FACTOR = env.bool("STAFF_NEEDS_SECOND_FACTOR", default=not LOCAL_MODE)
# How long a session of the staff lasts at most, and how long without use.
STAFF_SESSION_HOURS = env.int("STAFF_SESSION_HOURS", default=12)
STAFF_IDLE_MINUTES = env.int("STAFF_IDLE_MINUTES", default=60)
LOGIN_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/console/"
LOGOUT_REDIRECT_URL = "/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
EMAIL_BACKEND = env.str("EMAIL_BACKEND", default="django.core.mail.backends.console.EmailBackend")
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="Seedancee2 <no-reply@seedancee2.ai>")
EMAIL_TIMEOUT = 10  # seconds; a mail that could not be sent is tried again
# Where customers' requests for credits go; without one the staff find them in the admin only.
STAFF_EMAIL = env.str("STAFF_EMAIL", default="")
SUPPORT_EMAIL = env.str("SUPPORT_EMAIL", default="support@seedancee2.ai")  # where "report a problem" goes

UNFOLD = {
    "SITE_TITLE": "Seedancee2 staff",
    "SITE_HEADER": "Seedancee2 staff",
    "SITE_SYMBOL": "movie",
    "STYLES": [lambda request: static("seedancee2/staff.css")],
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("seedancee2/favicon.svg")},
    ],
    "DASHBOARD_CALLBACK": "seedancee2.console.staff_dashboard.fill",
    "SIDEBAR": {"show_search": True},  # the search box is ours: templates/unfold/helpers/search.html
}

# --- Browser safety. Plain HTTP is for the local machine only. ---
_IS_HTTPS = PUBLIC_BASE_URL.startswith("https://")
# The prefix makes browsers refuse the cookie from anywhere but this very host, by https.
_COOKIE_PREFIX = "__Host-" if _IS_HTTPS else ""
SESSION_COOKIE_NAME = f"{_COOKIE_PREFIX}sessionid"
SESSION_COOKIE_AGE = env.int("SESSION_DAYS", default=14) * 86_400
SESSION_COOKIE_SECURE = _IS_HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = f"{_COOKIE_PREFIX}csrftoken"
CSRF_COOKIE_SECURE = _IS_HTTPS
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_HSTS_SECONDS = 31_536_000 if _IS_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = _IS_HTTPS
SECURE_HSTS_PRELOAD = _IS_HTTPS
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
_MEDIA = ["'self'", "{0.scheme}://{0.netloc}".format(urlsplit(MEDIA_BASE_URL))]
CONTENT_SECURITY_POLICY = {
    # The API answers JSON. /admin has a policy of its own (seedancee2/console/staff_policy.py).
    "EXCLUDE_URL_PREFIXES": ("/v1", "/callbacks", "/media"),
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "img-src": [*_MEDIA, "data:"],  # allauth draws the second factor's code as data
        "media-src": _MEDIA,
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
    },
}
ALLAUTH_TRUSTED_PROXY_COUNT = env.int("TRUSTED_PROXY_COUNT", default=0)
BEHIND_TLS_PROXY = env.bool("BEHIND_TLS_PROXY", default=False)
if BEHIND_TLS_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# An API host must not redirect http to https: the key would already have travelled in clear (ASVS 5.0, 4.1.2).
SILENCED_SYSTEM_CHECKS = ["security.W008"]

# --- Language and time. ---
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

# --- Logs: readable lines locally, JSON elsewhere; one line per event with request and task ids. ---
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
LOGGING_CONFIG = "seedancee2.lib.logs.configure"
LOGGING = {"level": LOG_LEVEL, "is_readable": LOCAL_MODE or DEBUG}
PROMETHEUS_EXPORT_MIGRATIONS = False
# Whoever reads /metrics sends this as a bearer token; without one the page is there on a local machine only.
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")

SENTRY_DSN = env.str("SENTRY_DSN", default="")
if SENTRY_DSN:
    import sentry_sdk
    from sentry_sdk.integrations.stdlib import StdlibIntegration

    sentry_sdk.init(
        dsn=SENTRY_DSN,
        send_default_pii=False,
        max_request_body_size="never",
        include_local_variables=False,
        # It adds headers about us to requests to customers' hosts, and keeps their addresses with the query.
        disabled_integrations=[StdlibIntegration()],
    )
