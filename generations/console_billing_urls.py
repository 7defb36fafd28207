"""Addresses of the console's pages of usage and statements, under `/console/`."""

from django.urls import path

from generations import console_statements, console_usage

urlpatterns = [
    path("usage/", console_usage.UsageView.as_view(), name="console-usage"),
    path("usage.csv", console_usage.UsageFileView.as_view(), name="console-usage-file"),
    path("billing/statements/<str:month>/", console_statements.StatementView.as_view(), name="console-statement"),
    path(
        "billing/statements/<str:month>.csv",
        console_statements.StatementFileView.as_view(),
        name="console-statement-file",
    ),
]
