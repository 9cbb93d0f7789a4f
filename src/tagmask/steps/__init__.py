"""The steps of a run, one a file, run folder in and run folder out; no step imports another."""
