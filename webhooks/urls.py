"""Addresses that providers call back."""

from django.urls import path

from webhooks import views

urlpatterns = [path("<slug:channel>/<str:token>", views.receive_callback, name="provider-callback")]
