"""Probes that see activations and weights; modules with a leading underscore are shared."""
