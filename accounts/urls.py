"""Addresses of the console's pages about people and keys, under `/console/`."""

from django.urls import path

from accounts import views

urlpatterns = [
    path("organization/", views.SwitchOrganizationView.as_view(), name="console-organization"),
    path("keys/", views.KeysView.as_view(), name="console-keys"),
    path("keys/<int:key_id>/revoke/", views.RevokeKeyView.as_view(), name="console-key-revoke"),
]
