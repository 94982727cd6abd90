"""Readers of the families of formats: Pillow's, LibRaw's and libjxl's."""
