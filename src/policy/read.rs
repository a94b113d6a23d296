//! Opens one record by number and distrusts it: who wrote it, what it is, how long it is.
