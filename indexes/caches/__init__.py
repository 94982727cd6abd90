"""What can be computed again from photos: thumbnails with features, vectors of crops."""
