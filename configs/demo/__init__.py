"""The demo's four runs of small models on emoji, with the same trainer as the full-size recipes."""
