//! Which fields of the API do what they say. Filled in with the validation.
