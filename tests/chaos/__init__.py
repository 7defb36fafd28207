"""The whole system as processes, hurt while it works: `make chaos`, its short form, and life without one part."""
