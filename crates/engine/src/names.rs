//! Names for containers that were given none.
