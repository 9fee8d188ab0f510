"""Supervision of a run: signals, collapse rules, rollbacks, interventions, scheduled evaluation."""
