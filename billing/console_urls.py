"""Addresses of the console's pages about credits, under `/console/`."""

from django.urls import path

from billing import console

urlpatterns = [
    path("billing/", console.BillingView.as_view(), name="console-billing"),
    path("billing/ledger/", console.LedgerView.as_view(), name="console-ledger"),
    path("billing/ledger.csv", console.LedgerFileView.as_view(), name="console-ledger-file"),
    path("billing/top-up/", console.TopUpView.as_view(), name="console-top-up"),
    path(
        "billing/top-up/<str:request_id>/withdraw/", console.WithdrawTopUpView.as_view(), name="console-top-up-withdraw"
    ),
    path("billing/alerts/", console.AddAlertView.as_view(), name="console-alert-add"),
    path("billing/alerts/<int:alert_id>/remove/", console.RemoveAlertView.as_view(), name="console-alert-remove"),
]
