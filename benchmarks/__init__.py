"""Measurements as commands; each starts what it needs and stops it again."""
