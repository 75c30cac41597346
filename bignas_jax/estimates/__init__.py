"""Memory and time on a TPU pod, as the TPU's compiler estimates them."""
