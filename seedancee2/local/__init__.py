"""The embedded PostgreSQL and Valkey for a machine that has none; never imported in production."""
