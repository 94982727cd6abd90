"""Keep a store sound: check, repair, compaction, and migration to another space."""
