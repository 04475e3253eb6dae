"""One agent per arrow of the data's path: decode, call core, commit."""
