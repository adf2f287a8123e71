"""Release: the folder that holds everything that a device needs, and the way back from it to a checked manifest."""
