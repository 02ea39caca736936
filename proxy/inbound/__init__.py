"""Delivery: streams that peers open, to the local services that this host offers."""
