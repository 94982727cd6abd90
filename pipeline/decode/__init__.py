"""Bytes in, pixels out: formats, colour, EXIF, resize; photos are hostile, so workers decode them."""
