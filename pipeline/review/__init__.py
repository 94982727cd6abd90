"""The review of groups by a person: their listing, the choices on them, and the plan of these."""
