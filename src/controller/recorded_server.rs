//! An API server in memory, for tests: it keeps what is written as the real one does, remembers every write, and fails at the
//! write that it is told to.
//!
//! As the real one: versions that rise and are checked, UIDs, server-side apply with field managers and their conflicts,
//! fields that leave when their last manager no longer applies them, immutable objects, status beside the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

/// What goes wrong at one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends before the write is stored.
    EndedBefore,
    /// The process ends after the write is stored, before it hears of it.
    EndedAfter,
    /// Nothing is stored, and the answer is 504.
    LostBefore,
    /// The write is stored, and the answer is 504.
    LostAfter,
    /// Nothing is stored, and the answer is 409.
    Conflict,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::EndedBefore,
        Self::EndedAfter,
        Self::LostBefore,
        Self::LostAfter,
        Self::Conflict,
    ];

    fn ends_the_process(self) -> bool {
        matches!(self, Self::EndedBefore | Self::EndedAfter)
    }

    fn stores(self) -> bool {
        matches!(self, Self::EndedAfter | Self::LostAfter)
    }
}

/// The path of one field, from the object's root.
type Field = Vec<String>;

/// An object, and who manages which of its fields.
#[derive(Clone, Default)]
struct Stored {
    value: Value,
    managers: BTreeMap<String, BTreeSet<Field>>,
}

#[derive(Clone, Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    version: u64,
    /// Requests that write, in their order.
    writes: Vec<String>,
    /// Every object that was ever stored, by path, in the order of the writes.
    stored: Vec<(String, Value)>,
    fault: Option<(usize, Fault)>,
    /// What the next write waits for.
    gate: Option<Arc<Gate>>,
    /// Whether the process that wrote is at its end: it hears and says nothing more.
    ended: bool,
}

/// Holds one write up.
#[derive(Default)]
pub struct Gate {
    reached: Notify,
    released: Notify,
}

impl Gate {
    /// Waits until there is a write to hold up.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets it go on.
    pub fn release(&self) {
        self.released.notify_one();
    }
}

/// Objects by path, and the writes in their order.
#[derive(Default)]
pub struct Server(Mutex<State>);

/// An answer: a status and a body; `None` is a connection that breaks.
type Answer = Option<(u16, Value)>;

impl Server {
    /// A server of its own with the same objects, which remembers no writes.
    pub fn copy(&self) -> Arc<Self> {
        let mut state = self.state().clone();
        state.writes.clear();
        Arc::new(Self(Mutex::new(state)))
    }

    /// A client of this server.
    pub fn client(self: &Arc<Self>) -> Client {
        let server = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&server);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let gate = server.gate_of(&parts);
                if let Some(gate) = gate {
                    gate.reached.notify_one();
                    gate.released.notified().await;
                }
                let answer = server.answer(&parts.method, &parts.uri, &body);
                let (status, answer) = answer.ok_or("the connection broke")?;
                let body = Body::from(serde_json::to_vec(&answer)?);
                Ok::<_, tower::BoxError>(Response::builder().status(status).body(body)?)
            }
        });
        Client::new(service, "ops")
    }

    /// The `at`th write from now on, counted from 0, goes wrong.
    pub fn fail(&self, at: usize, fault: Fault) {
        let mut state = self.state();
        let at = state.writes.len() + at;
        state.fault = Some((at, fault));
    }

    /// The next write is held up before it is looked at.
    pub fn hold_next_write(&self) -> Arc<Gate> {
        Arc::clone(self.state().gate.insert(Arc::default()))
    }

    fn gate_of(&self, request: &http::request::Parts) -> Option<Arc<Gate>> {
        let writes = request.method != Method::GET && !is_event(request.uri.path());
        self.state().gate.take_if(|_| writes)
    }

    /// Whether the process came to its end; the next one is heard again.
    pub fn begin_anew(&self) -> bool {
        std::mem::take(&mut self.state().ended)
    }

    /// The requests that wrote since this was asked last.
    pub fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().writes)
    }

    /// How many requests wrote since [`Server::writes`] was asked.
    pub fn write_count(&self) -> usize {
        self.state().writes.len()
    }

    /// Every object that was ever stored under `path`, oldest first.
    pub fn history(&self, path: &str) -> Vec<Value> {
        let state = self.state();
        let of = state.stored.iter().filter(|(stored, _)| stored == path);
        of.map(|(_, value)| value.clone()).collect()
    }

    /// All objects, by path.
    pub fn objects(&self) -> BTreeMap<String, Value> {
        let state = self.state();
        let objects = state.objects.iter();
        objects
            .map(|(path, stored)| (path.clone(), stored.value.clone()))
            .collect()
    }

    /// The paths of all objects.
    pub fn paths(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// The object at `path`.
    pub fn get(&self, path: &str) -> Option<Value> {
        let state = self.state();
        state.objects.get(path).map(|stored| stored.value.clone())
    }

    /// Stores an object as a person would, whoever manages it.
    pub fn put(&self, path: &str, object: &impl serde::Serialize) {
        let mut state = self.state();
        let mut stored = state.objects.get(path).cloned().unwrap_or_default();
        stored.value = serde_json::to_value(object).expect("JSON");
        state.store(path, stored);
    }

    /// Takes an object away.
    pub fn remove(&self, path: &str) -> Option<Value> {
        self.state().objects.remove(path).map(|stored| stored.value)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    fn answer(&self, method: &Method, uri: &http::Uri, body: &[u8]) -> Answer {
        let mut state = self.state();
        let path = uri.path();
        if state.ended {
            return None;
        }
        if is_event(path) {
            return Some((201, serde_json::from_slice(body).unwrap_or_default()));
        }
        if *method == Method::GET {
            return Some(state.read(path));
        }
        state.writes.push(format!("{method} {path}"));
        let fault = state.fault.filter(|(at, _)| *at + 1 == state.writes.len());
        let Some((_, fault)) = fault else {
            return Some(state.write(method, uri, body));
        };
        state.fault = None;
        if fault.stores() {
            state.write(method, uri, body);
        }
        state.ended = fault.ends_the_process();
        match fault {
            Fault::EndedBefore | Fault::EndedAfter => None,
            Fault::LostBefore | Fault::LostAfter => Some(failure(504, "Timeout")),
            Fault::Conflict => Some(failure(409, "Conflict")),
        }
    }
}

/// Events are told in the background, so they have no place in any order.
fn is_event(path: &str) -> bool {
    path.contains("/events")
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status =
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason});
    (code, status)
}

impl State {
    fn read(&self, path: &str) -> (u16, Value) {
        match self.objects.get(path) {
            Some(stored) => (200, stored.value.clone()),
            None if is_collection(path) => (200, self.list(path)),
            None => failure(404, "NotFound"),
        }
    }

    fn list(&self, path: &str) -> Value {
        let prefix = format!("{path}/");
        let of = self.objects.iter().filter(|(path, _)| path.starts_with(&prefix));
        let items: Vec<_> = of.map(|(_, stored)| stored.value.clone()).collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
    }

    fn write(&mut self, method: &Method, uri: &http::Uri, body: &[u8]) -> (u16, Value) {
        if *method == Method::DELETE {
            return self.delete(uri.path(), body);
        }
        let object: Value = serde_json::from_slice(body).expect("JSON");
        let query = uri.query().unwrap_or_default();
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        match *method {
            Method::POST => self.create(uri.path(), object),
            Method::PUT => self.replace(uri.path(), object),
            Method::PATCH if !query.contains_key("fieldManager") => self.merge(uri.path(), &object),
            Method::PATCH => {
                let manager = query.get("fieldManager").expect("a field manager");
                let force = query.get("force") == Some(&"true");
                self.apply(uri.path(), &object, manager, force)
            }
            ref other => panic!("nobody is known to {other} {}", uri.path()),
        }
    }

    /// Deletes at once, and only the object with the UID that is asked for.
    fn delete(&mut self, path: &str, body: &[u8]) -> (u16, Value) {
        let options: Value = serde_json::from_slice(body).unwrap_or_default();
        let uid = &options["preconditions"]["uid"];
        match self.objects.get(path) {
            None => failure(404, "NotFound"),
            Some(stored) if !uid.is_null() && stored.value["metadata"]["uid"] != *uid => {
                failure(409, "Conflict")
            }
            Some(_) => {
                self.objects.remove(path);
                (200, json!({"kind": "Status", "status": "Success"}))
            }
        }
    }

    fn create(&mut self, path: &str, object: Value) -> (u16, Value) {
        let path = format!("{path}/{}", object["metadata"]["name"].as_str().expect("a name"));
        if self.objects.contains_key(&path) {
            return failure(409, "AlreadyExists");
        }
        let stored = Stored {
            value: object,
            ..Stored::default()
        };
        (201, self.store(&path, stored))
    }

    /// A PUT of the version that was read.
    fn replace(&mut self, path: &str, object: Value) -> (u16, Value) {
        let Some(mut stored) = self.objects.get(path).cloned() else {
            return failure(404, "NotFound");
        };
        if stored.value["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
            return failure(409, "Conflict");
        }
        stored.value = object;
        (200, self.store(path, stored))
    }

    /// A merge patch (RFC 7386) of labels, for the object with the UID that it names.
    fn merge(&mut self, path: &str, patch: &Value) -> (u16, Value) {
        let Some(mut stored) = self.objects.get(path).cloned() else {
            return failure(404, "NotFound");
        };
        if stored.value["metadata"]["uid"] != patch["metadata"]["uid"] {
            return failure(409, "Conflict");
        }
        for (label, value) in patch["metadata"]["labels"].as_object().expect("labels") {
            stored.value["metadata"]["labels"][label] = value.clone();
        }
        (200, self.store(path, stored))
    }

    /// Server-side apply.
    fn apply(&mut self, path: &str, object: &Value, manager: &str, force: bool) -> (u16, Value) {
        let (path, status) = match path.strip_suffix("/status") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let before = self.objects.get(path).cloned();
        if before.is_none() && status {
            return failure(404, "NotFound");
        }
        let live = before.as_ref().map(|before| &before.value["metadata"]);
        if let Some(uid) = object["metadata"].get("uid")
            && live.is_none_or(|live| live["uid"] != *uid)
        {
            return failure(409, "Conflict");
        }
        if let (Some(live), Some(version)) = (live, object["metadata"].get("resourceVersion"))
            && live["resourceVersion"] != *version
        {
            return failure(409, "Conflict");
        }
        let applied = fields_of(object, status);
        let mut after = before.clone().unwrap_or_else(|| Stored {
            value: named(object),
            ..Stored::default()
        });
        for (field, value) in &applied {
            if lookup(&after.value, field) == Some(value) {
                continue;
            }
            let mut others = after.managers.iter_mut().filter(|(name, _)| *name != manager);
            if !force && others.any(|(_, fields)| fields.contains(field)) {
                return failure(409, "Conflict");
            }
            for fields in after.managers.values_mut() {
                fields.remove(field);
            }
            set(&mut after.value, field, value.clone());
        }
        let fields: BTreeSet<Field> = applied.into_keys().collect();
        let dropped = after.managers.insert(manager.to_owned(), fields.clone());
        for field in dropped.unwrap_or_default().difference(&fields) {
            if after.managers.values().all(|fields| !fields.contains(field)) {
                unset(&mut after.value, field);
            }
        }
        match before {
            Some(before) if before.value == after.value && before.managers == after.managers => {
                (200, before.value)
            }
            Some(before) if is_fixed(&before.value, &after.value) => failure(422, "Invalid"),
            _ => (200, self.store(path, after)),
        }
    }

    fn store(&mut self, path: &str, mut stored: Stored) -> Value {
        self.version += 1;
        let metadata = &mut stored.value["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        metadata["resourceVersion"] = json!(self.version.to_string());
        let value = stored.value.clone();
        self.stored.push((path.to_owned(), value.clone()));
        self.objects.insert(path.to_owned(), stored);
        value
    }
}

/// Whether a path names all objects of a kind in a namespace.
fn is_collection(path: &str) -> bool {
    let rest = path.split_once("/namespaces/");
    rest.is_some_and(|(_, rest)| rest.matches('/').count() == 1)
}

/// An object of the same name with nothing in it.
fn named(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    })
}

/// The fields that an object applies, and their values: its status, or all but that. Lists are taken as wholes.
fn fields_of(object: &Value, status: bool) -> BTreeMap<Field, Value> {
    let mut fields = BTreeMap::new();
    for (key, value) in object.as_object().expect("an object") {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "status" if !status => {}
            "metadata" => {
                for part in ["labels", "annotations", "ownerReferences"] {
                    if let Some(value) = value.get(part).filter(|_| !status) {
                        leaves(vec![key.clone(), part.to_owned()], value, &mut fields);
                    }
                }
            }
            _ => leaves(vec![key.clone()], value, &mut fields),
        }
    }
    fields
}

fn leaves(path: Field, value: &Value, fields: &mut BTreeMap<Field, Value>) {
    let Some(map) = value.as_object() else {
        fields.insert(path, value.clone());
        return;
    };
    for (key, value) in map {
        let mut path = path.clone();
        path.push(key.clone());
        leaves(path, value, fields);
    }
}

fn lookup<'a>(value: &'a Value, field: &[String]) -> Option<&'a Value> {
    field.iter().try_fold(value, |value, key| value.get(key))
}

fn set(value: &mut Value, field: &[String], to: Value) {
    let Some((first, rest)) = field.split_first() else {
        *value = to;
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let entry = value.as_object_mut().expect("made above").entry(first);
    set(entry.or_insert(Value::Null), rest, to);
}

fn unset(value: &mut Value, field: &[String]) {
    let Some((last, path)) = field.split_last() else {
        return;
    };
    let parent = path
        .iter()
        .try_fold(value, |value, key| value.get_mut(key))
        .and_then(Value::as_object_mut);
    if let Some(parent) = parent {
        parent.remove(last);
    }
}

/// Whether a change is refused: of what is immutable, or of a Secret's type.
fn is_fixed(before: &Value, after: &Value) -> bool {
    let sealed = before["immutable"] == json!(true)
        && (before["data"] != after["data"] || before["immutable"] != after["immutable"]);
    sealed || (!before["type"].is_null() && before["type"] != after["type"])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/api/v1/namespaces/ops/configmaps/c";

    fn apply(server: &Server, manager: &str, force: bool, object: &Value) -> u16 {
        let uri = format!("{PATH}?fieldManager={manager}&force={force}");
        let body = serde_json::to_vec(object).expect("JSON");
        let answer = server.answer(&Method::PATCH, &uri.parse().expect("a URI"), &body);
        answer.expect("an answer").0
    }

    fn map(data: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "ops"}, "data": data})
    }

    #[test]
    fn fields_belong_to_their_managers() {
        let server = Server::default();
        assert_eq!(
            apply(&server, "one", false, &map(&json!({"a": "1", "b": "1"}))),
            200
        );
        assert_eq!(apply(&server, "two", false, &map(&json!({"a": "2"}))), 409);
        assert_eq!(
            apply(&server, "two", false, &map(&json!({"a": "1", "c": "1"}))),
            200
        );
        assert_eq!(apply(&server, "one", false, &map(&json!({"b": "1"}))), 200);
        let data = |server: &Server| server.get(PATH).expect("stored")["data"].clone();
        assert_eq!(
            data(&server),
            json!({"a": "1", "b": "1", "c": "1"}),
            "another applies a"
        );
        assert_eq!(apply(&server, "one", true, &map(&json!({"a": "3"}))), 200);
        assert_eq!(apply(&server, "two", false, &map(&json!({}))), 200);
        assert_eq!(
            data(&server),
            json!({"a": "3"}),
            "two had lost a, and b and c were dropped"
        );
    }

    #[test]
    fn versions_and_immutable_objects_are_kept() {
        let server = Server::default();
        apply(&server, "one", false, &map(&json!({"a": "1"})));
        let mut second = map(&json!({"a": "2"}));
        second["immutable"] = json!(true);
        second["metadata"]["resourceVersion"] =
            server.get(PATH).expect("stored")["metadata"]["resourceVersion"].clone();
        assert_eq!(apply(&server, "one", true, &second), 200);
        assert_eq!(apply(&server, "one", true, &second), 409, "of an older version");
        second["metadata"] = map(&json!({}))["metadata"].clone();
        assert_eq!(apply(&server, "one", true, &second), 200);
        assert_eq!(server.history(PATH).len(), 2, "nothing changed");
        second["data"]["a"] = json!("3");
        assert_eq!(apply(&server, "one", true, &second), 422);
    }

    #[test]
    fn a_process_that_ended_is_not_heard_again() {
        for fault in Fault::ALL {
            let server = Server::default();
            server.fail(1, fault);
            let write = |number: u8| {
                let body = serde_json::to_vec(&map(&json!({"a": number.to_string()}))).expect("JSON");
                let uri = format!("{PATH}?fieldManager=m");
                let answer = server.answer(&Method::PATCH, &uri.parse().expect("a URI"), &body);
                answer.map(|answer| answer.0)
            };
            assert_eq!(write(0), Some(200));
            let answer = write(1);
            assert_eq!(answer.is_none(), fault.ends_the_process(), "{fault:?}");
            let stored = server.get(PATH).expect("stored")["data"]["a"] == "1";
            assert_eq!(stored, fault.stores(), "{fault:?}");
            assert_eq!(write(2).is_some(), !fault.ends_the_process(), "{fault:?}");
            assert_eq!(server.begin_anew(), fault.ends_the_process());
            assert_eq!(write(3), Some(200));
        }
    }
}
