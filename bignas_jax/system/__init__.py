"""The machine: files, locks, processes, signals, devices, the terminal."""
