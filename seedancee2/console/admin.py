"""Staff pages that show what all applications know; Django looks for them here."""

from seedancee2.console.admin_organizations import OrganizationAdmin

__all__ = ["OrganizationAdmin"]
