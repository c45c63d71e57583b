//! maml.
