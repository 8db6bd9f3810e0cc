"""HTTP service that embeds, classifies and searches, and its page."""
