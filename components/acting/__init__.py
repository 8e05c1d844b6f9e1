"""From network outputs to actions, on the device and on the host."""
