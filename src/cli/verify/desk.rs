//! What receipts are held against: the trust bundles, each verified once for all receipts, and what the user gave besides.

use std::path::Path;

use crypto::trust::TrustedKeys;
use crypto::verify::{Report, verify_with};
use crypto::{KeyId, VerifyingKey};
use serde_json::Value;

use super::Args;
use super::form::Form;
use super::named::Named;
use crate::error::Error;
use crate::trust::{self, Anchor};

/// The bundles and the evidence, shared by all jobs.
pub struct Desk {
    /// Of this machine's own keys, for files that one of them signed.
    machine: Option<(TrustedKeys, Bundle)>,
    /// The given or the pinned one, for files.
    given: Option<Bundle>,
    /// For objects of the cluster.
    cluster: Option<Bundle>,
    document: Option<Vec<u8>>,
    outputs: Option<Outputs>,
}

/// A bundle that was verified under the root to insist on, and what came of it.
struct Bundle {
    keys: Result<TrustedKeys, crypto::trust::Error>,
    /// Whether that root is one that the user pinned earlier and did not name now.
    pinned: bool,
    local: bool,
}

impl Bundle {
    fn of(anchor: &Anchor, root: Option<&KeyId>) -> Self {
        Self {
            keys: anchor.bundle.verify_pinned(root.or(anchor.pinned.as_ref())),
            pinned: root.is_none() && anchor.pinned.is_some(),
            local: anchor.local,
        }
    }
}

/// The outputs as the user gave them, and in the form in which heads sign them.
struct Outputs {
    given: Vec<u8>,
    as_signed: Option<Vec<u8>>,
}

/// A receipt that was looked at.
pub struct Examined {
    pub report: Report,
    /// What a reader should know besides.
    pub notes: Vec<String>,
    /// Whether another root than the pinned one was met.
    pub other_pin: bool,
}

impl Desk {
    /// Reads and verifies what the receipts need.
    pub async fn open(args: &Args, receipts: &[Named]) -> Result<Self, Error> {
        let root = args.root.as_deref().map(parse_root).transpose()?;
        let file = args.trust.as_deref();
        let verified = |anchor: Anchor| Bundle::of(&anchor, root.as_ref());
        let with_own_keys = |anchor: Anchor| Some((anchor.bundle.verify().ok()?, verified(anchor)));
        let (mut machine, mut given, mut cluster) = (None, None, None);
        if receipts.iter().any(|receipt| !receipt.is_in_cluster()) {
            if file.is_none() {
                machine = trust::of_machine()?.and_then(with_own_keys);
            }
            given = trust::of_file(file)?.map(verified);
        }
        if receipts.iter().any(Named::is_in_cluster) {
            let anchor = trust::of_cluster(file, &args.cluster, &args.operator).await?;
            cluster = Some(verified(anchor));
        }
        Ok(Self {
            machine,
            given,
            cluster,
            document: read_evidence(args.document.as_deref())?,
            outputs: read_evidence(args.outputs.as_deref())?.map(|given| Outputs {
                as_signed: as_signed(&given),
                given,
            }),
        })
    }

    /// Makes every check of one receipt.
    pub fn examine(&self, named: &Named, bytes: &[u8]) -> Result<Examined, Error> {
        let form = Form::of(bytes);
        let bundle = self.bundle_for(named, &form)?;
        let held_against = |outputs: Option<&[u8]>| {
            form.judge(|envelope| {
                verify_with(envelope, bundle.keys.as_ref(), self.document.as_deref(), outputs)
            })
        };
        let given = self.outputs.as_ref().map(|outputs| outputs.given.as_slice());
        let (mut report, mut notes) = held_against(given);
        if report.failure().is_some_and(|check| check.name == "outputs")
            && let Some(signed) = self
                .outputs
                .as_ref()
                .and_then(|outputs| outputs.as_signed.as_deref())
        {
            (report, notes) = held_against(Some(signed));
        }
        if bundle.local {
            notes.push("signed on this machine, and checked under its own root".to_owned());
        }
        let other_pin = bundle.pinned && report.failure().is_some_and(|check| check.name == "root");
        Ok(Examined {
            report,
            notes,
            other_pin,
        })
    }

    /// The bundle of the place that a receipt came from.
    fn bundle_for(&self, named: &Named, form: &Form<'_>) -> Result<&Bundle, Error> {
        let found = if named.is_in_cluster() {
            self.cluster.as_ref()
        } else {
            let own = self
                .machine
                .as_ref()
                .filter(|(keys, _)| form.signer().is_some_and(|signer| keys.find(&signer).is_some()));
            own.map(|(_, bundle)| bundle).or(self.given.as_ref())
        };
        found.ok_or_else(trust::no_bundle)
    }
}

fn read_evidence(path: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|cause| Error::usage(format!("cannot read {}", path.display())).because(&cause))
    };
    path.map(read).transpose()
}

/// The form in which heads sign outputs: no white space, members in order, whole numbers without a fraction. Outputs
/// that went through a cluster or a formatter get their signed bytes back; `None` when they are no JSON.
fn as_signed(outputs: &[u8]) -> Option<Vec<u8>> {
    fn whole(value: &mut Value) {
        match value {
            Value::Number(number) => {
                let float = number
                    .as_f64()
                    .filter(|float| number.is_f64() && float.fract() == 0.0);
                if let Some(float) = float.filter(|float| float.abs() < 9_007_199_254_740_992.0) {
                    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
                    let integer = float as i64;
                    *number = integer.into();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(whole),
            Value::Object(members) => members.values_mut().for_each(whole),
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }
    let mut value = serde_json::from_slice(outputs).ok()?;
    whole(&mut value);
    serde_json::to_vec(&value).ok()
}

/// A key id, or the id of the key in a PEM file.
fn parse_root(root: &str) -> Result<KeyId, Error> {
    if let Ok(id) = root.parse() {
        return Ok(id);
    }
    let pem = std::fs::read_to_string(root).map_err(|cause| {
        Error::usage(format!("cannot read the root {root}"))
            .because(&cause)
            .hint("--root takes a key id of 64 hexadecimal digits, or a file with a public key in PEM")
    })?;
    let key = VerifyingKey::from_spki_pem(&pem)
        .map_err(|cause| Error::usage(format!("cannot read the public key in {root}")).because(&cause))?;
    Ok(key.key_id().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_get_their_signed_bytes_back_in_any_layout() {
        let printed = "{\n  \"b\": \"\\u0001ä\",\n  \"a\": [1.0, 5e-1]\n}\n";
        assert_eq!(
            as_signed(printed.as_bytes()).as_deref(),
            Some("{\"a\":[1,0.5],\"b\":\"\\u0001ä\"}".as_bytes())
        );
        assert_eq!(as_signed(b"no JSON"), None);
    }
}
