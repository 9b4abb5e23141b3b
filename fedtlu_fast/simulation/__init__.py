"""The federation: cohort, round, run, and the state that a run can be resumed from."""
