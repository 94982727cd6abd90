"""Shared test support: drawn images, small stores and models, local servers."""
