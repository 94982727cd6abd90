"""The server of the review page and of the HTTP API; the only part that knows HTTP."""
