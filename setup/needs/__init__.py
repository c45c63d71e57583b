"""What the project needs from a machine. Each module finds out one kind of thing and changes nothing."""
