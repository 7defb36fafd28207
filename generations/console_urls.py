"""Addresses of the console's pages about tasks and the playground, under `/console/`."""

from django.urls import path

from generations import console_playground, console_tasks

urlpatterns = [
    path("tasks/", console_tasks.TasksView.as_view(), name="console-tasks"),
    path("tasks/export.csv", console_tasks.ExportTasksView.as_view(), name="console-tasks-export"),
    path("tasks/<str:public_id>/", console_tasks.TaskView.as_view(), name="console-task"),
    path("tasks/<str:public_id>/delete/", console_tasks.DeleteTaskView.as_view(), name="console-task-delete"),
    path("playground/", console_playground.PlaygroundView.as_view(), name="console-playground"),
    path("playground/tasks/<str:public_id>/", console_playground.ResultView.as_view(), name="console-playground-task"),
]
