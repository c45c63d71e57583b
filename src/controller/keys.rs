//! Keys: what each KeyRotationPolicy keeps in its Secret, what the published bundle says of them, and which of them this process
//! signs with and opens with.

pub mod activation;
pub mod bundle;
#[cfg(test)]
mod damage;
pub mod entropy;
#[cfg(test)]
mod faults;
pub mod keyring;
pub mod requests;
pub mod root_key;
pub mod root_rotation;
pub mod rotation;
#[cfg(test)]
mod simulation;
pub mod store;
