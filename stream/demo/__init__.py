"""A simulated shop, its shoppers, and what an outside consumer sees of the program."""
