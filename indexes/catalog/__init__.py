"""The SQLite database of a store, its one commit point."""
