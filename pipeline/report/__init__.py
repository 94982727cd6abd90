"""Groups, matches and the state of a store as JSON, text, HTML and pictures."""
