//! The header of a seal: what it is bound to and who can open it. Strict JSON, the same for texts and files.

use super::schedule::{LEN, WRAPPED_LEN, Wrapping, put};
use super::{ContentKey, Error, RECIPIENTS_LIMIT, Run, TYPE};
use crate::digest::sha256_hex;
use crate::json;
use crate::kem::{CIPHERTEXT_LEN, DecapsulationKey, EncapsulationKey};
use crate::key::KeyId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeSet;
use subtle::ConstantTimeEq as _;

/// What seals are made with. Unknown names are refused, never guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SealSuite {
    #[serde(rename = "ML-KEM-1024+HKDF-SHA3-512+AES-256-GCM-STREAM")]
    V1,
}

impl SealSuite {
    const fn name(self) -> &'static str {
        match self {
            Self::V1 => "ML-KEM-1024+HKDF-SHA3-512+AES-256-GCM-STREAM",
        }
    }
}

/// The only place where a seal may be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The namespace.
    pub namespace: String,
    /// Name of the MamlWorkflow in it.
    pub workflow: String,
    /// SHA-256 of the document, hexadecimal; without one, any document of that workflow.
    pub document: Option<String>,
}

impl Binding {
    /// Binds to a workflow and, when the document is given, to its bytes.
    pub fn new(namespace: &str, workflow: &str, document: Option<&[u8]>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            workflow: workflow.to_owned(),
            document: document.map(sha256_hex),
        }
    }

    /// Whether `run` is what the seal is for.
    pub fn check(&self, run: &Run<'_>) -> Result<(), Error> {
        let document = sha256_hex(run.document);
        let bound = self.document.as_ref().unwrap_or(&document);
        for (what, sealed, actual) in [
            ("namespace", &*self.namespace, run.namespace),
            ("workflow", &*self.workflow, run.workflow),
            ("document", &**bound, &*document),
        ] {
            if sealed != actual {
                return Err(Error::Elsewhere {
                    what,
                    sealed: sealed.to_owned(),
                    actual: actual.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The bytes that every key of the seal depends on.
    pub(super) fn context(&self) -> Vec<u8> {
        let mut context = Vec::with_capacity(512);
        let document = self.document.as_deref().unwrap_or_default();
        for part in [
            TYPE,
            SealSuite::V1.name(),
            &self.namespace,
            &self.workflow,
            document,
        ] {
            put(&mut context, part.as_bytes());
        }
        context
    }
}

/// The content key for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stanza {
    key_id: KeyId,
    ciphertext: Base64,
    wrapped_key: Base64,
}

/// A header that can be read; whether it is genuine shows when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    binding: Binding,
    commitment: [u8; LEN],
    stanzas: Vec<Stanza>,
    code: [u8; LEN],
}

impl Header {
    /// What the seal is bound to.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The keys that can open it.
    pub fn recipients(&self) -> impl Iterator<Item = &KeyId> {
        self.stanzas.iter().map(|stanza| &stanza.key_id)
    }

    pub(super) fn commitment(&self) -> &[u8] {
        &self.commitment
    }

    pub(super) fn seal(
        content: &ContentKey,
        binding: Binding,
        recipients: &[&EncapsulationKey],
    ) -> Result<Self, Error> {
        let stanzas = recipients
            .iter()
            .map(|recipient| Stanza::seal(content, &binding, recipient))
            .collect::<Result<Vec<_>, _>>()?;
        check_recipients(&stanzas)?;
        let mut header = Self {
            commitment: content.commitment(&binding),
            binding,
            stanzas,
            code: [0; LEN],
        };
        header.code = content.authenticate(&header.binding, &header.authenticated());
        Ok(header)
    }

    /// The content key, once everything in the header proved genuine.
    pub(super) fn open(&self, key: &DecapsulationKey) -> Result<ContentKey, Error> {
        let id = key.encapsulation_key().key_id();
        let stanza = self.stanzas.iter().find(|stanza| stanza.key_id == *id);
        let stanza = stanza.ok_or_else(|| Error::NotForKey(id.clone()))?;
        let content = stanza.open(&self.binding, key)?;
        let commitment = content.commitment(&self.binding);
        let code = content.authenticate(&self.binding, &self.authenticated());
        if (commitment.ct_eq(&self.commitment) & code.ct_eq(&self.code)).into() {
            Ok(content)
        } else {
            Err(Error::Damaged)
        }
    }

    pub(super) fn rewrap(
        &self,
        key: &DecapsulationKey,
        recipients: &[&EncapsulationKey],
    ) -> Result<Self, Error> {
        Self::seal(&self.open(key)?, self.binding.clone(), recipients)
    }

    /// What the code is made over: the commitment and all stanzas. The binding is in the key.
    fn authenticated(&self) -> Vec<u8> {
        let mut bytes = self.commitment.to_vec();
        for stanza in &self.stanzas {
            put(&mut bytes, stanza.key_id.as_str().as_bytes());
            put(&mut bytes, &stanza.ciphertext.0);
            put(&mut bytes, &stanza.wrapped_key.0);
        }
        bytes
    }
}

impl Stanza {
    fn seal(content: &ContentKey, binding: &Binding, recipient: &EncapsulationKey) -> Result<Self, Error> {
        let (ciphertext, secret) = recipient.encapsulate()?;
        let wrapped = content.wrap(&Wrapping {
            binding,
            recipient,
            ciphertext: &ciphertext,
            secret: &secret,
        })?;
        Ok(Self {
            key_id: recipient.key_id().clone(),
            ciphertext: Base64(ciphertext),
            wrapped_key: Base64(wrapped),
        })
    }

    fn open(&self, binding: &Binding, key: &DecapsulationKey) -> Result<ContentKey, Error> {
        let secret = key.decapsulate(&self.ciphertext.0)?;
        let wrapping = Wrapping {
            binding,
            recipient: key.encapsulation_key(),
            ciphertext: &self.ciphertext.0,
            secret: &secret,
        };
        ContentKey::unwrap(&self.wrapped_key.0, &wrapping)
    }
}

fn check_recipients(stanzas: &[Stanza]) -> Result<(), Error> {
    let different: BTreeSet<_> = stanzas.iter().map(|stanza| &stanza.key_id).collect();
    if (1..=RECIPIENTS_LIMIT).contains(&stanzas.len()) && different.len() == stanzas.len() {
        Ok(())
    } else {
        Err(Error::Recipients)
    }
}

/// A header as JSON; with its body, it is a whole sealed text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Text {
    #[serde(rename = "_type")]
    type_: String,
    suite: SealSuite,
    namespace: String,
    workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    commitment: Base64,
    recipients: Vec<Stanza>,
    code: Base64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Base64>,
}

impl Text {
    /// Reads a header and, if it has one, its body.
    pub(super) fn read(bytes: &[u8]) -> Result<(Header, Option<Vec<u8>>), Error> {
        let read: Self = json::from_slice(bytes).map_err(Error::Format)?;
        if read.type_ != TYPE {
            return Err(Error::Type(read.type_));
        }
        check_recipients(&read.recipients)?;
        let lengths = read.recipients.iter().all(|stanza| {
            stanza.ciphertext.0.len() == CIPHERTEXT_LEN && stanza.wrapped_key.0.len() == WRAPPED_LEN
        });
        if !lengths {
            return Err(Error::Damaged);
        }
        let header = Header {
            binding: Binding {
                namespace: read.namespace,
                workflow: read.workflow,
                document: read.document,
            },
            commitment: read.commitment.fixed()?,
            stanzas: read.recipients,
            code: read.code.fixed()?,
        };
        Ok((header, read.body.map(|body| body.0)))
    }

    /// One line of JSON.
    pub(super) fn write(header: &Header, body: Option<&[u8]>) -> String {
        let document = Self {
            type_: TYPE.to_owned(),
            suite: SealSuite::V1,
            namespace: header.binding.namespace.clone(),
            workflow: header.binding.workflow.clone(),
            document: header.binding.document.clone(),
            commitment: Base64(header.commitment.to_vec()),
            recipients: header.stanzas.clone(),
            code: Base64(header.code.to_vec()),
            body: body.map(|body| Base64(body.to_vec())),
        };
        serde_json::to_string(&document).expect("strings alone always serialise")
    }
}

/// Bytes as standard base64 with padding, in the one way to write them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Base64(Vec<u8>);

impl Base64 {
    fn fixed(&self) -> Result<[u8; LEN], Error> {
        self.0.as_slice().try_into().map_err(|_| Error::Damaged)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(de::Error::custom)
    }
}
