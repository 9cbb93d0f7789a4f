"""How training runs: devices, loop, optimisers, logs. Knows no method and no data set."""
