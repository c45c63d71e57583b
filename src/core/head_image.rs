//! Which images a head may name. No IO: a tag is never resolved, so only a digest says what will run.

/// Checks an image against the operator's list. An entry is
/// - a reference, which allows exactly that one; of a reference with tag and digest the tag does not count,
/// - a prefix that ends in `*`, which allows everything that begins so,
/// - a bare digest `sha256:…`, which allows it in whatever repository.
///
/// Where every entry has a digest, an image without one is refused, and the error says so.
pub fn check(image: &str, allowed: &[String]) -> Result<(), String> {
    if allowed.iter().any(|entry| allows(entry, image)) {
        return Ok(());
    }
    let by_digest = !allowed.is_empty() && allowed.iter().all(|entry| entry.contains(DIGEST));
    if by_digest && digest_of(image).is_none() {
        return Err(format!(
            "image {image} has no digest, and the operator allows images by their digest only; name it as \
             REPOSITORY@sha256:…"
        ));
    }
    Err(format!(
        "image {image} is not among the images that the operator allows"
    ))
}

const DIGEST: &str = "sha256:";

fn allows(entry: &str, image: &str) -> bool {
    if let Some(prefix) = entry.strip_suffix('*') {
        return image.starts_with(prefix);
    }
    if entry.starts_with(DIGEST) {
        return digest_of(image) == Some(entry);
    }
    without_useless_tag(image) == without_useless_tag(entry)
}

fn digest_of(image: &str) -> Option<&str> {
    image.split_once('@').map(|(_, digest)| digest)
}

/// Container runtimes ignore a tag beside a digest.
fn without_useless_tag(image: &str) -> (&str, &str) {
    let Some((name, digest)) = image.split_once('@') else {
        return (image, "");
    };
    // A colon before the last slash is of a port.
    let tag = name.rfind(':').filter(|colon| !name[*colon..].contains('/'));
    (tag.map_or(name, |colon| &name[..colon]), digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_allowed_by_reference_prefix_or_digest() {
        let allowed = [
            "a.test/heads/*",
            "b.test:5000/head@sha256:1",
            "sha256:2",
            "c.test/head:3",
        ]
        .map(ToOwned::to_owned);
        for (image, expected) in [
            ("a.test/heads/gpu:9", true),
            ("a.test/other", false),
            ("b.test:5000/head@sha256:1", true),
            ("b.test:5000/head:7@sha256:1", true),
            ("b.test:5000/head@sha256:12", false),
            ("b.test:5000/head:7", false),
            ("anywhere.test/x@sha256:2", true),
            ("anywhere.test/x:sha256:2", false),
            ("c.test/head:3", true),
            ("c.test/head:3@sha256:9", false),
            ("c.test/head", false),
        ] {
            assert_eq!(check(image, &allowed).is_ok(), expected, "{image}");
        }
    }

    #[test]
    fn a_list_of_digests_refuses_every_tag_and_says_why() {
        let allowed = ["a.test/head@sha256:1", "a.test/other@sha256:*", "sha256:2"].map(ToOwned::to_owned);
        let refused = check("a.test/head:latest", &allowed).expect_err("a tag");
        assert!(refused.contains("by their digest only"), "{refused}");
        assert!(check("a.test/other@sha256:77", &allowed).is_ok());
        let other = check("a.test/head@sha256:9", &allowed).expect_err("another digest");
        assert!(!other.contains("no digest"), "{other}");
    }
}
