"""The pool: all sessions to one peer. ``policy`` decides (sans-IO), ``pool`` carries it out."""
