"""Other tools' files -> recordings, and recordings -> other tools' files. What is read comes from outside: bounded, never executed."""
