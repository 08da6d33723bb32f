"""What can be switched on, one file a family: each changes the `Setup` of a job, and every engine runs the result."""
