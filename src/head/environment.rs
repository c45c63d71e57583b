//! What this head runs documents with, as it tells the controller: interpreter, packages, languages, devices.

use head_proto::Environment;
use sandbox::workers::Ready;

/// The environment as the zygote and the GPU's driver told it; `memory` is what one run may use, in bytes.
pub fn of(ready: &Ready, memory: u64, cuda: String) -> Environment {
    Environment {
        interpreter: ready.interpreter.clone(),
        packages: ready.packages.clone(),
        packages_digest: ready.packages_digest.clone(),
        languages: ready.languages.clone(),
        landlock_abi: ready.landlock_abi,
        cuda,
        memory_bytes: memory,
    }
}

/// GPU devices that the container runtime gave to this pod, from the value of NVIDIA_VISIBLE_DEVICES: what is known of them
/// before the driver has answered. Only names and numbers count; with CDI the value is a word, and with devices that are
/// asked for by mounts it is a path.
pub fn visible_devices(visible: Option<&str>) -> Vec<String> {
    let devices = visible.unwrap_or_default().split(',').map(str::trim);
    devices
        .filter(|device| names_device(device))
        .map(ToOwned::to_owned)
        .collect()
}

/// `GPU-…`, `MIG-…`, the number of a GPU, or that of an instance in it, as `0:1`.
fn names_device(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.starts_with("GPU-") || text.starts_with("MIG-") || text.split(':').all(is_number)
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
        assert_eq!(visible_devices(Some("GPU-1, GPU-2")), ["GPU-1", "GPU-2"]);
        assert_eq!(visible_devices(Some("0,1:2,MIG-3")), ["0", "1:2", "MIG-3"]);
        for none in [
            "",
            "void",
            "none",
            "all",
            "/var/run/nvidia-container-devices",
            "nvidia.com/gpu=0",
            ",",
        ] {
            assert!(visible_devices(Some(none)).is_empty(), "{none}");
        }
        assert!(visible_devices(None).is_empty());
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
