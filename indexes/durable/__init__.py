"""Files that are whole or absent, locks that end with their process, failpoints for kill tests."""
