"""Files that are whole or absent, locks that end with their process, and failpoints for the kill tests."""
