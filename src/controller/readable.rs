//! Objects of a watch, some of which may not be readable as their kind.
//!
//! One such object must not end a watch. `kube::core::DeserializeGuard` serves the same purpose, but reads each object into a
//! tree and clones that tree before it is read as its kind; here the text itself is read.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::PartialObjectMeta};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::value::RawValue;

/// An object as its kind, or what could be read of it.
#[derive(Debug, Clone)]
pub struct Readable<K>(pub Result<K, Unreadable>);

/// An object that is not what its kind demands.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What is wrong with it.
    pub error: String,
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Readable<K> {
    /// From JSON text only. An error when not even its metadata can be read.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        serde_json::from_str(text.get())
            .map(Ok)
            .or_else(|error| {
                let PartialObjectMeta::<K> { metadata, .. } =
                    serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                let error = error.to_string();
                Ok(Err(Unreadable { metadata, error }))
            })
            .map(Self)
    }
}

impl<K: Resource> Resource for Readable<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0
            .as_ref()
            .map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0
            .as_mut()
            .map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::{ObjectList, WatchEvent};

    const BROKEN: &str = r#"{"metadata":{"name":"p","namespace":"team"},"spec":{"containers":"none"}}"#;

    #[test]
    fn an_event_with_an_unreadable_object_still_says_which_one_it_is() {
        let event = format!(r#"{{"type":"MODIFIED","object":{BROKEN}}}"#);
        let Ok(WatchEvent::Modified(pod)) = serde_json::from_str::<WatchEvent<Readable<Pod>>>(&event) else {
            panic!("not read")
        };
        assert_eq!(pod.meta().name.as_deref(), Some("p"));
        let unreadable = pod.0.unwrap_err();
        assert!(
            unreadable.error.contains("containers") || unreadable.error.contains("sequence"),
            "{}",
            unreadable.error
        );
    }

    #[test]
    fn a_list_has_the_others_too() {
        let good = r#"{"metadata":{"name":"q"},"spec":{"containers":[]}}"#;
        let list =
            format!(r#"{{"apiVersion":"v1","kind":"PodList","metadata":{{}},"items":[{BROKEN},{good}]}}"#);
        let list: ObjectList<Readable<Pod>> = serde_json::from_str(&list).unwrap();
        let readable: Vec<_> = list.items.iter().map(|pod| pod.0.is_ok()).collect();
        assert_eq!(readable, [false, true]);
        assert_eq!(list.items[1].meta().name.as_deref(), Some("q"));
    }

    #[test]
    fn what_has_no_metadata_at_all_is_an_error() {
        assert!(serde_json::from_str::<Readable<Pod>>("[]").is_err());
    }
}
