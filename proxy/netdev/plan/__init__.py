"""What would change (sans-IO): a configuration and what was observed in, steps out."""
