"""Decisions of people: enter them, forget them, exchange them with other stores."""
