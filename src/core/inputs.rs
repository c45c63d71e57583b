//! The inputs of a run, as its program gets them, and how they are named to those who may not read them. No IO.

use std::fmt;

use crypto::{DigestSet, seal::Blinding};
use zeroize::Zeroizing;

/// One JSON object, serialised once: these bytes are what is granted and sent. They may be secret, so that `Debug` shows
/// their length alone, and they are wiped when they are dropped.
#[derive(Clone, PartialEq)]
pub struct Inputs {
    bytes: Zeroizing<Vec<u8>>,
    blinding: Option<Blinding>,
}

impl Inputs {
    /// Inputs that anybody may know who may read the workflow.
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Zeroizing::new(bytes),
            blinding: None,
        }
    }

    /// Inputs of which some were sealed.
    pub fn blinded(bytes: Vec<u8>, blinding: Blinding) -> Self {
        Self {
            bytes: Zeroizing::new(bytes),
            blinding: Some(blinding),
        }
    }

    /// Inputs as a head gives them back: an empty blinding is none; nothing if it is no blinding.
    pub fn from_head(bytes: Vec<u8>, blinding: &[u8]) -> Option<Self> {
        if blinding.is_empty() {
            return Some(Self::plain(bytes));
        }
        Some(Self::blinded(bytes, Blinding::from_slice(blinding)?))
    }

    /// The JSON.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The blinding for the head; empty when nothing was sealed.
    pub fn blinding(&self) -> &[u8] {
        self.blinding.as_ref().map_or(&[], Blinding::as_bytes)
    }

    /// What grants, receipts and status name the inputs by. Sealed ones cannot be found from it by trying.
    pub fn digest(&self) -> DigestSet {
        match &self.blinding {
            None => DigestSet::of(&self.bytes),
            Some(blinding) => blinding.digest(&self.bytes),
        }
    }
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inputs({} bytes)", self.bytes.len())
    }
}
