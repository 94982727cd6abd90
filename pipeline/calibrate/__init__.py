"""What this library would find: thresholds measured on synthetic copies of its own photos."""
