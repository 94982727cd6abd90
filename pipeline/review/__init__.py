"""What a person reviews: the listing of groups, the choices on them, and the plan of these."""
