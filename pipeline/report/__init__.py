"""Answers of commands as JSON for programs, and as text, pages and images for people."""
