"""Probes that see logits only; modules with a leading underscore hold what several share."""
