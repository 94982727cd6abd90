"""All pairs of vectors at or above a score: planned, exact with a bound or by IVF lists, with a measured recall."""
