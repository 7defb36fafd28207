"""Addresses of a person's own pages, under `/accounts/` beside allauth's."""

from django.urls import path

from accounts import profile

urlpatterns = [
    path("profile/", profile.ProfileView.as_view(), name="account_profile"),
]
