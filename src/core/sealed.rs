//! Sealed inputs of a workflow: what the keys at hand make of `spec.sealedInputs`. No IO; keys come in as a function.

use std::{borrow::Borrow, fmt, sync::Arc};

use api::{MamlWorkflow, MamlWorkflowSpec};
use crypto::{
    DigestSet, KeyId,
    kem::DecapsulationKey,
    seal::{Blinding, Error, Run, Sealed},
};
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

/// What became of `spec.sealedInputs`.
#[derive(Debug)]
pub enum SealedInputs {
    /// There are none.
    None,
    /// They are for this run, and here they are.
    Opened(Opened),
    /// No key at hand opens them; why, for a person. Another key may come.
    Locked(String),
    /// They are not for this run, or not what was sealed; why, for a person.
    Refused(String),
}

/// Inputs that were sealed. `Debug` shows nothing of them, and their texts are wiped when they are dropped.
pub struct Opened {
    members: Map<String, Value>,
    blinding: Blinding,
}

impl Opened {
    /// The inputs by name.
    pub fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    /// What keeps their digest from telling them.
    pub fn blinding(&self) -> &Blinding {
        &self.blinding
    }

    /// Whether what is found at a JSON Pointer into all inputs is, or may hold, one of them.
    pub fn hides(&self, pointer: &str) -> bool {
        hides(&self.members, pointer)
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened(…)")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.members.values_mut().for_each(wipe);
    }
}

/// Whether what is found at a JSON Pointer is, or may hold, one of the `secret` members.
pub fn hides(secret: &Map<String, Value>, pointer: &str) -> bool {
    let Some(rest) = pointer.strip_prefix('/') else {
        return !secret.is_empty();
    };
    let name = rest.split('/').next().unwrap_or_default();
    secret.contains_key(&name.replace("~1", "/").replace("~0", "~"))
}

/// Overwrites every text in a value.
pub(crate) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Opens a workflow's sealed inputs for the run of `document`. `key` gives the key of an id if it may serve the
/// workflow's namespace.
pub fn open<K: Borrow<DecapsulationKey>>(
    workflow: &MamlWorkflow,
    document: &[u8],
    key: impl Fn(&KeyId) -> Option<Arc<K>>,
) -> SealedInputs {
    let Some(text) = &workflow.spec.sealed_inputs else {
        return SealedInputs::None;
    };
    let refused = |error: &Error| SealedInputs::Refused(format!("spec.sealedInputs: {error}"));
    let sealed = match Sealed::from_json(text.as_bytes()) {
        Ok(sealed) => sealed,
        Err(error) => return refused(&error),
    };
    let run = Run {
        namespace: workflow.metadata.namespace.as_deref().unwrap_or_default(),
        workflow: workflow.metadata.name.as_deref().unwrap_or_default(),
        document,
    };
    // Before any key is looked for: a text for elsewhere is no reason to wait.
    if let Err(error) = sealed.header().binding().check(&run) {
        return refused(&error);
    }
    let Some(key) = sealed.header().recipients().find_map(key) else {
        return SealedInputs::Locked(locked(&sealed));
    };
    let opened = match sealed.open_for(&run, (*key).borrow()) {
        Ok(opened) => opened,
        Err(error) => return refused(&error),
    };
    // The parser's own words could quote what was sealed.
    match serde_json::from_slice(&opened.plaintext) {
        Ok(Value::Object(members)) => SealedInputs::Opened(Opened {
            members,
            blinding: opened.blinding,
        }),
        _ => SealedInputs::Refused("spec.sealedInputs: what was sealed is no JSON object".to_owned()),
    }
}

fn locked(sealed: &Sealed) -> String {
    let keys: Vec<_> = sealed.header().recipients().map(KeyId::short).collect();
    format!(
        "the operator holds none of the keys {} that spec.sealedInputs is sealed for; if they were retired, renew it with \
         `chimera seal --rewrap`",
        keys.join(", ")
    )
}

/// What grants and receipts name the sealed inputs by; nothing when there are none, or none that can be read.
pub fn digest(spec: &MamlWorkflowSpec) -> Option<DigestSet> {
    let sealed = Sealed::from_json(spec.sealed_inputs.as_ref()?.as_bytes()).ok()?;
    Some(sealed.digest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::seal::Binding;
    use serde_json::json;

    const DOCUMENT: &[u8] = b"a document";

    fn key(seed: u8) -> Arc<DecapsulationKey> {
        Arc::new(DecapsulationKey::from_seed(&[seed; crypto::kem::SEED_LEN]).expect("a key"))
    }

    fn workflow(plaintext: &[u8], binding: Binding) -> MamlWorkflow {
        let sealed = Sealed::seal(plaintext, binding, &[key(1).encapsulation_key()]).expect("sealed");
        let mut workflow = MamlWorkflow::new("w", MamlWorkflowSpec::default());
        workflow.metadata.namespace = Some("team".into());
        workflow.spec.sealed_inputs = Some(sealed.to_json());
        workflow
    }

    fn open_with(workflow: &MamlWorkflow, seed: u8) -> SealedInputs {
        let key = key(seed);
        open(workflow, DOCUMENT, |id| {
            (id == key.encapsulation_key().key_id()).then(|| Arc::clone(&key))
        })
    }

    fn for_w() -> Binding {
        Binding::new("team", "w", None)
    }

    #[test]
    fn inputs_are_opened_for_their_own_run() {
        for binding in [for_w(), Binding::new("team", "w", Some(DOCUMENT))] {
            let SealedInputs::Opened(opened) = open_with(&workflow(br#"{"a":"hunter2"}"#, binding), 1) else {
                panic!("not opened")
            };
            assert_eq!(Value::Object(opened.members().clone()), json!({"a": "hunter2"}));
            assert!(!format!("{opened:?}").contains("hunter2"));
        }
    }

    #[test]
    fn what_is_sealed_for_elsewhere_is_refused_whoever_holds_the_key() {
        for (binding, what) in [
            (Binding::new("other", "w", None), "namespace other"),
            (Binding::new("team", "x", None), "workflow x"),
            (Binding::new("team", "w", Some(b"another")), "document"),
        ] {
            let workflow = workflow(b"{}", binding);
            for seed in [1, 2] {
                let SealedInputs::Refused(message) = open_with(&workflow, seed) else {
                    panic!("not refused")
                };
                assert!(message.contains(what), "{message}");
            }
        }
    }

    #[test]
    fn without_its_key_a_text_is_locked_and_the_message_says_how_to_renew_it() {
        let SealedInputs::Locked(message) = open_with(&workflow(b"{}", for_w()), 2) else {
            panic!("not locked")
        };
        assert!(
            message.contains("--rewrap") && message.contains(key(1).encapsulation_key().key_id().short()),
            "{message}"
        );
    }

    #[test]
    fn what_is_damaged_or_no_object_is_refused_without_being_quoted() {
        let mut damaged = workflow(b"{}", for_w());
        let text = damaged.spec.sealed_inputs.take().expect("sealed");
        damaged.spec.sealed_inputs = Some(text.replacen("\"body\":\"", "\"body\":\"AAAA", 1));
        let mut none = damaged.clone();
        none.spec.sealed_inputs = Some("x".into());
        for workflow in [
            damaged,
            none,
            workflow(b"hunter2", for_w()),
            workflow(b"[\"hunter2\"]", for_w()),
        ] {
            let SealedInputs::Refused(message) = open_with(&workflow, 1) else {
                panic!("not refused")
            };
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn secret_members_hide_themselves_what_is_in_them_and_the_whole() {
        let Value::Object(secret) = json!({"a": 1, "b/c": 2}) else {
            panic!("an object")
        };
        for (pointer, hidden) in [
            ("", true),
            ("/a", true),
            ("/a/x", true),
            ("/b~1c/0", true),
            ("/aa", false),
            ("/x/a", false),
        ] {
            assert_eq!(hides(&secret, pointer), hidden, "{pointer}");
        }
        assert!(!hides(&Map::new(), ""));
    }
}
