//! What interpreters get of the world around them, and the digest that says which packages they have.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Of the caller's own environment, interpreters get these and no others.
const INHERITED: [&str; 9] = [
    "PATH",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "TZ",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "CUDA_VISIBLE_DEVICES",
];

/// The same in every run. Qiskit would start processes that share semaphores, which a run may not.
const FIXED: [(&str, &str); 6] = [
    ("LANG", "C.UTF-8"),
    ("PYTHONUTF8", "1"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("USER", "chimera"),
    ("LOGNAME", "chimera"),
    ("QISKIT_PARALLEL", "FALSE"),
];

/// The environment of an interpreter. `lookup` gives the caller's own variables.
pub fn of_interpreter(lookup: impl Fn(&str) -> Option<OsString>) -> BTreeMap<String, OsString> {
    let inherited = INHERITED
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), lookup(name)?)));
    let fixed = FIXED
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()));
    inherited.chain(fixed).collect()
}

/// The environment of user code: what of the interpreter's is text.
pub fn of_runs(interpreter: &BTreeMap<String, OsString>) -> BTreeMap<String, String> {
    interpreter
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.to_str()?.to_owned())))
        .collect()
}

/// SHA-256 (hexadecimal) over the sorted lines `name==version\n`.
pub fn packages_digest(packages: &BTreeMap<String, String>) -> String {
    let mut digest = Sha256::new();
    for (name, version) in packages {
        digest.update(format!("{name}=={version}\n"));
    }
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_get_nothing_of_the_environment_but_what_is_listed() {
        let environment = of_interpreter(|_| Some("x".into()));
        assert!(
            environment.keys().all(
                |name| INHERITED.contains(&name.as_str()) || FIXED.iter().any(|(fixed, _)| fixed == name)
            )
        );
        assert_eq!(environment["LANG"], "C.UTF-8");
    }
}
