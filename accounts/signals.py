"""What other applications may want to do in the transaction of something that happened here."""

from django.dispatch import Signal

# A person has signed up and got an organization of their own. Sent inside the transaction: who raises undoes it all.
# Arguments: organization, owner.
organization_signed_up = Signal()
