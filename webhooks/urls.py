"""Addresses about webhooks: the API's below `/v1/webhooks`, the console's pages, and those that providers call back."""

from django.urls import path

from webhooks import api, console, views

api_patterns = [
    path("deliveries", api.DeliveryViewSet.as_view({"get": "list"}), name="webhook-deliveries"),
    path("deliveries/<str:id>", api.DeliveryViewSet.as_view({"get": "retrieve"}), name="webhook-delivery"),
    path("deliveries/<str:id>/redeliver", api.DeliveryViewSet.as_view({"post": "redeliver"}), name="webhook-redeliver"),
    path("test", api.DeliveryViewSet.as_view({"post": "send_test"}), name="webhook-test"),
    path("recover", api.DeliveryViewSet.as_view({"post": "recover"}), name="webhooks-recover"),
]

console_patterns = [
    path("", console.DeliveriesView.as_view(), name="console-webhooks"),
    path("deliveries/<str:delivery_id>/", console.DeliveryView.as_view(), name="console-webhook"),
    path("test/", console.SampleView.as_view(), name="console-webhook-test"),
    path("recover/", console.RecoverView.as_view(), name="console-webhooks-recover"),
    path("signing/", console.SigningView.as_view(), name="console-webhook-signing"),
    path("signing/secret/", console.SecretView.as_view(), name="console-webhook-secret"),
    path("signing/rotate/", console.RotateView.as_view(), name="console-webhook-rotate"),
]

urlpatterns = [path("<slug:channel>/<str:token>", views.receive_callback, name="provider-callback")]
