"""What we change in Faust, through its own extension points: batches, stores, tables, commits."""
