"""Is a trace sound? Identities that hold for every sound recording, tested before any verdict."""
