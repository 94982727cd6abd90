"""Find all pairs of vectors at or above a score, exactly or by inverted lists."""
