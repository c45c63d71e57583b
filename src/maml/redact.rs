//! Takes secrets out of a text before it is mirrored into a receipt, which is kept for ever and read by many.
//!
//! The rules are the published formats of well-known tokens, private keys, credentials in URLs and assignments to names such
//! as `password`. They find what is recognisable; they are no leave to write secrets into documents. Redacting twice changes
//! nothing more. All patterns run in linear time.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// A rule: its name, which is left in the text, and its pattern. A group `keep` is put back in front.
const RULES: [(&str, &str); 16] = [
    (
        "private-key",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
    ),
    ("aws-access-key", r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    (
        "github-token",
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})",
    ),
    ("gitlab-token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("slack-token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    (
        "slack-webhook",
        r"https://hooks\.slack\.com/services/[A-Za-z0-9/]{20,}",
    ),
    ("google-api-key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("stripe-key", r"\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("api-key", r"\bsk-[A-Za-z0-9_-]{20,}"),
    ("hugging-face-token", r"\bhf_[A-Za-z0-9]{30,}"),
    ("npm-token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("pypi-token", r"\bpypi-[A-Za-z0-9_-]{50,}"),
    (
        "json-web-token",
        r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    ),
    (
        "bearer-token",
        r"(?i)(?P<keep>\bauthorization[\x22']?\s*[:=]\s*[\x22']?(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
    ),
    (
        "url-credentials",
        r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s/@:\x22']{0,64}:)[^\s/@\x22'\[]{1,256}(?P<after>@)",
    ),
    (
        "assignment",
        // A quoted value, or an unquoted one that fills the rest of its line, so that calls and subscripts of code stay.
        r"(?im)(?P<keep>\b[a-z0-9_.-]{0,64}(?:password|passwd|passphrase|secret|token|api_?key|api-key|access_?key|private_?key|credentials?)[\x22']?[ \t]*[:=][ \t]*)(?:\x22[^\x22\[\n][^\x22\n]{3,}\x22|'[^'\[\n][^'\n]{3,}'|[A-Za-z0-9_.~+/=!@\#%^&*-]{8,}(?P<after>[ \t]*\r?$))",
    ),
];

static PATTERNS: LazyLock<Vec<(&'static str, Regex)>> = LazyLock::new(|| {
    RULES
        .iter()
        .map(|(name, pattern)| {
            (
                *name,
                Regex::new(pattern).expect("the rules are constants that a test compiles"),
            )
        })
        .collect()
});

/// The text without the secrets that the rules find; each leaves a mark such as `[redacted:github-token]`.
pub fn redact(text: &str) -> String {
    let mut redacted = Cow::Borrowed(text);
    for (name, pattern) in PATTERNS.iter() {
        let found = pattern.replace_all(&redacted, |captures: &regex::Captures<'_>| {
            let group = |name| captures.name(name).map_or("", |group| group.as_str());
            format!("{}[redacted:{name}]{}", group("keep"), group("after"))
        });
        if let Cow::Owned(found) = found {
            redacted = Cow::Owned(found);
        }
    }
    redacted.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Put together at run time, so that no scanner takes this file for a leak.
    fn token(prefix: &str, length: usize) -> String {
        format!(
            "{prefix}{}",
            "A2b3C4d5".repeat(40).chars().take(length).collect::<String>()
        )
    }

    #[test]
    fn known_secrets_are_taken_out_and_the_rest_stays() {
        let key = format!("-----BEGIN EC {0}-----\nabc\n-----END EC {0}-----", "PRIVATE KEY");
        for (secret, name) in [
            (token("ghp_", 36), "github-token"),
            (token("glpat-", 20), "gitlab-token"),
            (token("xoxb-", 20), "slack-token"),
            (token("AIza", 35), "google-api-key"),
            (token("sk_live_", 24), "stripe-key"),
            (token("sk-", 40), "api-key"),
            (token("hf_", 34), "hugging-face-token"),
            (token("npm_", 36), "npm-token"),
            (token("pypi-", 60), "pypi-token"),
            (format!("AKIA{}", "ABCDEFGH234567AB"), "aws-access-key"),
            (
                format!("{}.{}.{}", token("eyJ", 20), token("eyJ", 20), token("", 20)),
                "json-web-token",
            ),
            (key, "private-key"),
        ] {
            let text = format!("before {secret} after");
            assert_eq!(redact(&text), format!("before [redacted:{name}] after"));
        }
    }

    #[test]
    fn assignments_lose_their_value_and_code_does_not() {
        for (text, expected) in [
            (
                "password: hunter2hunter2\nx: 1",
                "password: [redacted:assignment]\nx: 1",
            ),
            ("DB_PASSWORD=s3cr3t-value", "DB_PASSWORD=[redacted:assignment]"),
            ("token = \"abcdefgh\"", "token = [redacted:assignment]"),
            (
                "{\"api_key\": \"abcdefgh\"}",
                "{\"api_key\": [redacted:assignment]}",
            ),
            (
                "Authorization: Bearer abcdefgh.ijkl",
                "Authorization: Bearer [redacted:bearer-token]",
            ),
            (
                "postgres://ann:pa55word@db/x",
                "postgres://ann:[redacted:url-credentials]@db/x",
            ),
        ] {
            assert_eq!(redact(text), expected);
        }
        for text in [
            "token = read_token(path)",
            "token = os.environ[\"TOKEN\"]",
            "for token in tokens:",
            "The password is asked for when it runs.",
            "https://example.com:8443/path",
            "ids: agent://ann",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    proptest! {
        #[test]
        fn redacting_twice_changes_nothing_more(text in "(password|token|[a-z]|[:= \"'\n]|https://|@|\\[|ghp_|[A-Z0-9]{4}){0,40}") {
            let once = redact(&text);
            prop_assert_eq!(redact(&once), once);
        }
    }
}
