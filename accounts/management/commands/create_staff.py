"""Make the first member of the staff, who can sign in at once."""

import getpass
import sys
from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.validators import validate_email
from django.db import transaction

from accounts.models import User


class Command(BaseCommand):
    help = "Make a member of the staff with every right; the password is read from the terminal or standard input."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("email", help="E-mail address, taken as verified.")
        parser.add_argument("--name", default="", help="The person's name.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the person with a verified address, so that no mail is needed for the first sign-in."""
        email = options["email"].strip().lower()
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        try:
            validate_email(email)
            validate_password(password)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        if User.objects.filter(email=email).exists():
            raise CommandError(f"There is a person with the address {email} already.")
        with transaction.atomic():
            user = User.objects.create_superuser(email, password, name=options["name"])
            EmailAddress.objects.create(user=user, email=email, primary=True, verified=True)
        self.stdout.write(f"{email} can sign in at /admin/ now.")
