//! Sealed inputs and files: encrypted to ML-KEM-1024 keys, and bound to one workflow of one namespace.
//!
//! A random content key encrypts the body by STREAM over AES-256-GCM; each recipient's stanza wraps that key, so that
//! [`Sealed::rewrap`] changes recipients and leaves the body alone. Everything is derived from the content key *and* the
//! [`Binding`]: under another namespace, workflow or document, the key is another one. GCM commits to no key and a bent
//! KEM ciphertext gives another secret without an error, so a commitment and a code over the whole header are compared,
//! in constant time, before a byte of the body is touched. docs/sealing.md has the format to the byte.

mod body;
mod file;
mod header;
mod schedule;

pub use file::{open_file, read_header, rewrap_file, seal_file};
pub use header::{Binding, Header};
pub use schedule::{Blinding, ContentKey};

use crate::digest::DigestSet;
use crate::kem::{DecapsulationKey, EncapsulationKey};
use crate::key::{self, KeyId};
use header::Text;
use std::io;
use zeroize::Zeroizing;

/// The `_type` of a sealed text or file.
pub const TYPE: &str = "https://chimera.dunes.io/sealed/v1";
/// The most recipients that one header may name.
pub const RECIPIENTS_LIMIT: usize = 16;

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key could not be made or used.
    #[error("use a key to seal or open")]
    Key(#[from] key::Error),
    /// Not JSON of the right shape.
    #[error("not a sealed text or file")]
    Format(#[source] serde_json::Error),
    /// A `_type` of another version.
    #[error("a seal's _type must be `{TYPE}`, found `{0}`")]
    Type(String),
    /// A text without its body, or a file whose body stands in its header.
    #[error("a sealed text holds its body as base64, a sealed file behind its header line: this is neither")]
    Body,
    /// No recipient, too many, or one twice.
    #[error("a seal needs 1 to {RECIPIENTS_LIMIT} different recipients")]
    Recipients,
    /// None of the stanzas is for this key.
    #[error("it is not sealed for key {0}")]
    NotForKey(KeyId),
    /// It belongs to another workflow, namespace or document.
    #[error("it is sealed for {what} {sealed}, not for {actual}")]
    Elsewhere {
        /// `namespace`, `workflow` or `document`.
        what: &'static str,
        /// What it is bound to.
        sealed: String,
        /// Where it was found.
        actual: String,
    },
    /// A stanza, the header or the body is not what was sealed.
    #[error("it was changed after it was sealed, or cut off")]
    Damaged,
    /// More than a body can hold.
    #[error("it is larger than a sealed file can be")]
    TooLarge,
    /// Input or output failed.
    #[error("read or write a sealed file")]
    Io(#[from] io::Error),
}

/// A run that asks for its sealed inputs.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Name of its MamlWorkflow.
    pub workflow: &'a str,
    /// The document's bytes.
    pub document: &'a [u8],
}

/// What a sealed text held. No `Debug`; wiped when it is dropped.
pub struct Opened {
    /// The plaintext.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// What makes a digest of the plaintext tell nothing to who may only guess.
    pub blinding: Blinding,
}

/// A sealed text: small enough for a field of a MamlWorkflow, held in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    header: Header,
    body: Vec<u8>,
}

impl Sealed {
    /// Seals `plaintext` for a workflow, to be opened by any of the recipients.
    pub fn seal(plaintext: &[u8], binding: Binding, recipients: &[&EncapsulationKey]) -> Result<Self, Error> {
        let content = ContentKey::generate()?;
        let header = Header::seal(&content, binding, recipients)?;
        let (key, context) = (content.body_key(header.binding()), header.binding().context());
        let mut body = Vec::with_capacity(body::sealed_len(plaintext.len()));
        body::encrypt(&key, &context, &mut &*plaintext, &mut body)?;
        Ok(Self { header, body })
    }

    /// Reads a sealed text strictly. Whether it is genuine is known when it is opened.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let (header, body) = Text::read(json)?;
        Ok(Self {
            header,
            body: body.ok_or(Error::Body)?,
        })
    }

    /// The text: one line of JSON, without a newline.
    pub fn to_json(&self) -> String {
        Text::write(&self.header, Some(&self.body))
    }

    /// Where it may be opened and by whom, as yet unproven.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What receipts name it by: digests over its commitment and its body. New recipients do not change it.
    pub fn digest(&self) -> DigestSet {
        DigestSet::of(&[self.header.commitment(), &self.body].concat())
    }

    /// Opens it for a run, which must be the one that it is bound to.
    pub fn open_for(&self, run: &Run<'_>, key: &DecapsulationKey) -> Result<Opened, Error> {
        self.header.binding().check(run)?;
        self.open(key)
    }

    /// Opens it wherever it is: for who sealed it, with a key of his own.
    pub fn open(&self, key: &DecapsulationKey) -> Result<Opened, Error> {
        let content = self.header.open(key)?;
        let binding = self.header.binding();
        let mut plaintext = Zeroizing::new(Vec::with_capacity(self.body.len()));
        body::decrypt(
            &content.body_key(binding),
            &binding.context(),
            &mut &*self.body,
            &mut *plaintext,
        )?;
        Ok(Opened {
            plaintext,
            blinding: content.blinding(binding),
        })
    }

    /// The same body for other recipients; `key` must be one of the present ones.
    pub fn rewrap(&self, key: &DecapsulationKey, recipients: &[&EncapsulationKey]) -> Result<Self, Error> {
        Ok(Self {
            header: self.header.rewrap(key, recipients)?,
            body: self.body.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
