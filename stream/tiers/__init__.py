"""The composition roots: settings -> the app, models, stages and tables of a tier."""
