"""From pictures to masks: one way of seeing, and the different places pictures come from and masks go to."""
