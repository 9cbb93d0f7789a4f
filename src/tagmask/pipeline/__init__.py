"""What a run is: its settings, its steps in order, and what a stop leaves."""
