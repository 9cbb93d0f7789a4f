"""A method and a data set that join tagmask from outside."""
