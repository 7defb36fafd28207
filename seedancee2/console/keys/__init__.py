"""The console's pages of API keys, which need the keys, the models and what was used of a cap."""
