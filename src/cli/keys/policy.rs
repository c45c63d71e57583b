//! A KeyRotationPolicy by its name, in the operator's namespace or in another.

use std::fmt;
use std::str::FromStr;

use api::KeyRotationPolicy;
use api::condition::{self, READY};
use kube::{Api, Client};

use crate::error::Error;

/// `NAME`, or `NAMESPACE/NAME` of a policy outside the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyName {
    /// Without one, the operator's.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl FromStr for PolicyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
            None => (None, text.to_owned()),
        };
        if name.is_empty() || name.contains('/') || namespace.as_deref() == Some("") {
            return Err("write NAME, or NAMESPACE/NAME".to_owned());
        }
        Ok(Self { namespace, name })
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl PolicyName {
    /// The policies among which this one is.
    pub fn api(&self, client: Client, operator_namespace: &str) -> Api<KeyRotationPolicy> {
        Api::namespaced(client, self.namespace.as_deref().unwrap_or(operator_namespace))
    }

    /// The policy itself.
    pub async fn find(&self, policies: &Api<KeyRotationPolicy>) -> Result<KeyRotationPolicy, Error> {
        policies.get_opt(&self.name).await?.ok_or_else(|| {
            Error::failed(format!("there is no KeyRotationPolicy {self}")).hint("kubectl get krp -A")
        })
    }
}

/// What the policy says of itself, for a message.
pub fn state(policy: &KeyRotationPolicy) -> String {
    let status = policy.status.as_ref();
    let ready = status.and_then(|status| condition::find(&status.conditions, READY));
    ready.map_or_else(
        || "the operator has not looked at it yet".to_owned(),
        |ready| format!("{}: {}", ready.reason, ready.message),
    )
}

/// The id of the key in use.
pub fn active(policy: &KeyRotationPolicy) -> Option<&str> {
    policy.status.as_ref()?.active_key_id.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_named_with_or_without_its_namespace() {
        let name: PolicyName = "signing".parse().unwrap();
        assert_eq!((name.namespace.as_deref(), name.name.as_str()), (None, "signing"));
        let name: PolicyName = "team-a/sealing".parse().unwrap();
        assert_eq!(name.to_string(), "team-a/sealing");
        for bad in ["", "/a", "a/", "a/b/c"] {
            assert!(bad.parse::<PolicyName>().is_err(), "{bad}");
        }
    }
}
