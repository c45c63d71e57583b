//! The images that tests give to heads: where the cluster finds what `images/build` made.

use crate::cluster;

/// What a later release of the default image would be. Its numpy is 99.0.0, and computes nothing.
pub fn head_next() -> String {
    built("chimera-head-next")
}

/// The image with PyTorch.
pub fn head_inference() -> String {
    built("chimera-head-inference")
}

fn built(name: &str) -> String {
    let registry = std::env::var("CHIMERA_REGISTRY").ok();
    reference(registry.filter(|_| !cluster::is_local()).as_deref(), name)
}

/// As `images/build` and `e2e/install` name it.
fn reference(registry: Option<&str>, name: &str) -> String {
    let registry = registry.map(|registry| registry.trim_end_matches('/'));
    let registry = registry.filter(|registry| !registry.is_empty());
    format!("{}/{name}:dev", registry.unwrap_or("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_on_the_node_unless_there_is_a_registry_to_pull_it_from() {
        for (registry, found) in [
            (None, "localhost/chimera-head-next:dev"),
            (Some(""), "localhost/chimera-head-next:dev"),
            (
                Some("registry.example:5000/chimera/"),
                "registry.example:5000/chimera/chimera-head-next:dev",
            ),
        ] {
            assert_eq!(reference(registry, "chimera-head-next"), found);
        }
    }
}
