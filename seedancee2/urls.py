"""The URL map: the public API, the pages and the staff's admin."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from accounts import console_visits
from seedancee2.api import schema
from seedancee2.console import documentation, health, home, mediafiles, pages, staff_rates, staff_search, status
from webhooks import urls as webhook_urls

admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign] # allauth's documented way
admin.site.site_header = admin.site.site_title = "Seedancee2 staff"

urlpatterns = [
    path("", pages.landing, name="landing"),
    path("v1/", include("generations.urls")),
    path("v1/webhooks/", include(webhook_urls.api_patterns)),
    path("callbacks/", include("webhooks.urls")),
    path("openapi.json", schema.serve, name="openapi"),
    path("docs", documentation.docs, name="docs"),
    path("docs.md", documentation.docs_markdown, name="docs-markdown"),
    path("docs/api", documentation.reference, name="docs-api"),
    path("docs/api/try", documentation.try_it, name="docs-try"),
    path("llms.txt", documentation.llms, name="llms"),
    path("accounts/", include("accounts.account_urls")),
    path("pricing", pages.pricing, name="pricing"),
    path("errors", pages.errors, name="errors"),
    path("changelog", pages.changelog, name="changelog"),
    path("status", status.page, name="status"),
    path("accounts/", include("allauth.urls")),
    path("console/", home.HomeView.as_view(), name="console-home"),
    path("console/webhooks/", include(webhook_urls.console_patterns)),
    path("console/", include("accounts.urls")),
    path("console/", include("billing.console_urls")),
    path("console/", include("generations.console_billing_urls")),
    path("console/", include("generations.console_urls")),
    path("console/keys/", include("seedancee2.console.keys.urls")),
    path("admin/visit/stop/", admin.site.admin_view(console_visits.stop), name="staff-visit-stop"),
    # These stand before the theme's own pages at the same addresses. A password is changed where it is written down.
    path("admin/password_change/", RedirectView.as_view(pattern_name="account_change_password")),
    path("admin/search/", admin.site.admin_view(staff_search.page)),
    path("admin/billing/rate/add/", admin.site.admin_view(staff_rates.add)),
    path("admin/", admin.site.urls),
    path("healthz", health.alive, name="healthz"),
    path("readyz", health.ready, name="readyz"),
    re_path(r"^media/(?P<path>.+)$", mediafiles.serve, name="media"),
    path("metrics", health.figures, name="metrics"),
]
handler404 = "seedancee2.console.pages.not_found"
handler500 = "seedancee2.console.pages.server_error"
