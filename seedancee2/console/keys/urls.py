"""Addresses of the console's pages of API keys, under `/console/keys/`."""

from django.urls import path

from seedancee2.console.keys import views

urlpatterns = [
    path("", views.KeysView.as_view(), name="console-keys"),
    path("<int:key_id>/", views.KeyView.as_view(), name="console-key"),
    path("<int:key_id>/roll/", views.RollKeyView.as_view(), name="console-key-roll"),
    path("<int:key_id>/revoke/", views.RevokeKeyView.as_view(), name="console-key-revoke"),
]
