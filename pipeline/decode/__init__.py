"""Decode files to pixels: formats, colour, EXIF, resizing, and the workers for hostile files."""
