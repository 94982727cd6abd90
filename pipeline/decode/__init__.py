"""Decode files to pixels: formats, color, EXIF, resizing, and the workers for hostile files."""
