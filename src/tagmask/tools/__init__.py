"""Modules that other programs are pointed at by name; what they do is in `tagmask.integrations`."""
