"""Addresses that the control plane gives out: asked for, remembered, given back."""
