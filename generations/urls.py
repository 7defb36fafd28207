"""The paths below `/v1`; each is served with a trailing slash too (`seedancee2.api.middleware`)."""

from django.urls import path

from generations import (
    api,
    openapi,  # noqa: F401 - its extensions must be known before the OpenAPI document is drawn
)

urlpatterns = [
    path("videos/generations", api.TaskViewSet.as_view({"get": "list", "post": "create"}), name="tasks"),
    path("videos/generations/<str:id>", api.TaskViewSet.as_view({"get": "retrieve"}), name="task"),
    path("models", api.ModelViewSet.as_view({"get": "list"}), name="models"),
    path("usage", api.UsageViewSet.as_view({"get": "retrieve"}), name="usage"),
]
