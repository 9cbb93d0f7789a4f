"""Modules that other programs are pointed at by name; what they do lies in `tagmask.integrations`."""
