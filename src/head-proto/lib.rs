//! head-proto.
