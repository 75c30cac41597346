"""BigNAS's claims, tried at small scale: arms, runs, verdicts."""
