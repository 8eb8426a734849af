"""What the command ``lemmata`` does and says, a file per command."""
