//! What this head runs documents with: interpreter, packages, languages, devices.

use crate::zygote::Ready;
use head_proto::Environment;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Languages of code blocks that a head runs.
pub const LANGUAGES: [&str; 1] = ["python"];

/// The environment as the zygote told it.
pub fn of(ready: &Ready) -> Environment {
    Environment {
        interpreter: ready.interpreter.clone(),
        packages: ready.packages.clone(),
        packages_digest: packages_digest(&ready.packages),
        languages: LANGUAGES.map(str::to_owned).to_vec(),
        landlock_abi: ready.landlock_abi,
    }
}

/// SHA-256 (hexadecimal) over the sorted lines `name==version\n`.
fn packages_digest(packages: &BTreeMap<String, String>) -> String {
    let mut digest = Sha256::new();
    for (name, version) in packages {
        digest.update(format!("{name}=={version}\n"));
    }
    hex::encode(digest.finalize())
}

/// GPU devices that the container runtime gave to this pod, from the value of NVIDIA_VISIBLE_DEVICES.
pub fn devices(visible: Option<&str>) -> Vec<String> {
    match visible {
        None | Some("" | "none" | "void" | "all") => vec![],
        Some(list) => list.split(',').map(|device| device.trim().to_owned()).collect(),
    }
}

/// The digest in an image reference, if it has one.
pub fn image_digest(image: Option<&str>) -> Option<String> {
    let (_, digest) = image?.rsplit_once('@')?;
    digest.starts_with("sha256:").then(|| digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_those_named_one_by_one() {
        assert_eq!(devices(Some("GPU-1, GPU-2")), ["GPU-1", "GPU-2"]);
        for none in [None, Some(""), Some("void"), Some("none")] {
            assert!(devices(none).is_empty());
        }
    }

    #[test]
    fn only_an_image_by_digest_has_one() {
        assert_eq!(
            image_digest(Some("r/i:t@sha256:ab")).as_deref(),
            Some("sha256:ab")
        );
        assert_eq!(image_digest(Some("localhost/chimera-head-cpu:dev")), None);
    }
}
