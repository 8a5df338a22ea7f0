"""A run as a thing: what a config names, its place, its arrays, its samples."""
