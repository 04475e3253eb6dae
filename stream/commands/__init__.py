"""The commands of ``prefstream``, thin: arguments in, a call, lines out."""
