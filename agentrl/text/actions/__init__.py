"""Action formats: between the model's message and the env's action. One file each."""
