"""Carrying a plan out, each step with its undo, and waiting until an interface is ready to be used."""
