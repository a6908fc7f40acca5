"""How fast: contenders side by side, the whole pipeline, the database at size, many workers."""
