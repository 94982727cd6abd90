"""Metadata of files: EXIF, maker notes, encodings, and the frames of animations and documents."""
