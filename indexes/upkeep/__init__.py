"""What keeps a store sound: check, repair, compaction, migration to another space."""
