"""Token rows in, numbers at a site out. The only room that imports torch."""
