"""What frameworks need to drive the backend, one file a framework; each is loaded when it is imported by name."""
