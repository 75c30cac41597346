"""Access to the machine: files, locks, processes, signals, devices, console."""
