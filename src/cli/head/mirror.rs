//! The objects of one kind as a watch shows them.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};

/// Objects by name. Nothing is told of before the first list is complete.
pub struct Mirror<K> {
    objects: BTreeMap<String, K>,
    arriving: BTreeMap<String, K>,
    complete: bool,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            arriving: BTreeMap::new(),
            complete: false,
        }
    }
}

impl<K: Resource> Mirror<K> {
    /// Takes one event.
    pub fn take(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.arriving.clear(),
            Event::InitApply(object) => {
                self.arriving.insert(object.name_any(), object);
            }
            // What is missing in the new list was deleted meanwhile.
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.arriving);
                self.complete = true;
            }
            Event::Apply(object) => {
                self.objects.insert(object.name_any(), object);
            }
            Event::Delete(object) => {
                self.objects.remove(&object.name_any());
            }
        }
    }

    /// All objects, by name, once they are known.
    pub fn objects(&self) -> Option<Vec<&K>> {
        self.complete.then(|| self.objects.values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(name: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map
    }

    #[test]
    fn a_new_list_takes_the_place_of_the_old_one() {
        let mut mirror = Mirror::default();
        let names = |mirror: &Mirror<ConfigMap>| {
            let objects = mirror.objects()?;
            Some(objects.iter().map(|object| object.name_any()).collect::<Vec<_>>())
        };
        mirror.take(Event::Init);
        mirror.take(Event::InitApply(map("a")));
        assert_eq!(names(&mirror), None);
        mirror.take(Event::InitDone);
        mirror.take(Event::Apply(map("b")));
        assert_eq!(names(&mirror), Some(vec!["a".to_owned(), "b".to_owned()]));
        mirror.take(Event::Init);
        mirror.take(Event::InitApply(map("c")));
        mirror.take(Event::InitDone);
        assert_eq!(names(&mirror), Some(vec!["c".to_owned()]));
        mirror.take(Event::Delete(map("c")));
        assert_eq!(names(&mirror), Some(Vec::new()));
    }
}
