//! Seals: what opens them, and that nothing else does.

use super::*;
use crate::kem::SEED_LEN;
use proptest::prelude::*;
use std::sync::LazyLock;

static ONE: LazyLock<DecapsulationKey> = LazyLock::new(|| key(1));
static TWO: LazyLock<DecapsulationKey> = LazyLock::new(|| key(2));

const DOCUMENT: &[u8] = b"a document";
const SECRET: &[u8] = br#"{"password":"hunter2"}"#;

fn key(seed: u8) -> DecapsulationKey {
    DecapsulationKey::from_seed(&[seed; SEED_LEN]).unwrap()
}

fn to(keys: &[&'static DecapsulationKey]) -> Vec<&'static EncapsulationKey> {
    keys.iter().map(|key| key.encapsulation_key()).collect()
}

fn binding() -> Binding {
    Binding::new("team", "report", None)
}

fn run<'a>() -> Run<'a> {
    Run {
        namespace: "team",
        workflow: "report",
        document: DOCUMENT,
    }
}

fn sealed() -> Sealed {
    Sealed::seal(SECRET, binding(), &to(&[&ONE])).unwrap()
}

/// Opens a text under the names of its run.
fn open(text: &[u8], key: &DecapsulationKey) -> Result<Opened, Error> {
    Sealed::from_json(text)?.open_for(&run(), key)
}

fn seal_bytes(plaintext: &[u8], keys: &[&'static DecapsulationKey]) -> Vec<u8> {
    let mut file = Vec::new();
    seal_file(&mut &*plaintext, &mut file, binding(), &to(keys)).unwrap();
    file
}

fn open_bytes(file: &[u8], key: &DecapsulationKey) -> Result<Vec<u8>, Error> {
    let mut plaintext = Vec::new();
    open_file(&mut &*file, &mut plaintext, key).map(|_| plaintext)
}

#[test]
fn every_recipient_opens_a_text_and_nobody_else() {
    let sealed = Sealed::seal(SECRET, binding(), &to(&[&ONE, &TWO])).unwrap();
    let text = sealed.to_json();
    assert!(!text.contains("hunter2"));
    assert_eq!(Sealed::from_json(text.as_bytes()).unwrap(), sealed);
    let (one, two) = (
        open(text.as_bytes(), &ONE).unwrap(),
        open(text.as_bytes(), &TWO).unwrap(),
    );
    assert_eq!(
        (one.plaintext.as_slice(), two.plaintext.as_slice()),
        (SECRET, SECRET)
    );
    assert!(one.blinding == two.blinding);
    assert!(matches!(open(text.as_bytes(), &key(3)), Err(Error::NotForKey(_))));
}

#[test]
fn a_text_opens_only_for_the_run_that_it_is_bound_to() {
    let free = sealed();
    let strict = Sealed::seal(
        SECRET,
        Binding::new("team", "report", Some(DOCUMENT)),
        &to(&[&ONE]),
    )
    .unwrap();
    assert!(free.open_for(&run(), &ONE).is_ok() && strict.open_for(&run(), &ONE).is_ok());
    for (elsewhere, expected) in [
        (
            Run {
                namespace: "other",
                ..run()
            },
            "namespace",
        ),
        (
            Run {
                workflow: "other",
                ..run()
            },
            "workflow",
        ),
        (
            Run {
                document: b"other",
                ..run()
            },
            "document",
        ),
    ] {
        let refused = strict.open_for(&elsewhere, &ONE).err().unwrap();
        assert!(
            matches!(refused, Error::Elsewhere { what, .. } if what == expected),
            "{refused}"
        );
        assert_eq!(free.open_for(&elsewhere, &ONE).is_ok(), expected == "document");
    }
}

#[test]
fn a_text_that_is_renamed_gives_another_key() {
    let text = Sealed::seal(
        SECRET,
        Binding::new("team", "report", Some(DOCUMENT)),
        &to(&[&ONE]),
    )
    .unwrap()
    .to_json();
    for (from, to) in [
        ("\"namespace\":\"team\"", "\"namespace\":\"meat\"".to_owned()),
        ("\"workflow\":\"report\"", "\"workflow\":\"other\"".to_owned()),
        ("\"workflow\":\"report\"", "\"workflow\":\"\"".to_owned()),
        (
            "\"document\":",
            format!("\"document\":\"{}\",\"x\":", "0".repeat(64)),
        ),
    ] {
        let bent = text.replacen(from, &to, 1);
        assert_ne!(bent, text);
        assert!(
            Sealed::from_json(bent.as_bytes())
                .and_then(|sealed| sealed.open(&ONE))
                .is_err()
        );
    }
}

#[test]
fn every_flipped_byte_of_a_text_is_noticed() {
    for keys in [to(&[&ONE]), to(&[&ONE, &TWO])] {
        let text = Sealed::seal(SECRET, binding(), &keys)
            .unwrap()
            .to_json()
            .into_bytes();
        for index in 0..text.len() {
            let mut bent = text.clone();
            bent[index] ^= 1 << (index % 8);
            assert!(open(&bent, &ONE).is_err(), "byte {index}");
        }
    }
}

#[test]
fn parts_of_two_texts_cannot_be_mixed() {
    let (one, two) = (sealed(), sealed());
    let mix = |header: &Sealed, body: &Sealed| Sealed {
        header: header.header.clone(),
        body: body.body.clone(),
    };
    assert!(matches!(mix(&one, &two).open(&ONE), Err(Error::Damaged)));
    let (one, two) = (one.to_json(), two.to_json());
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    for member in ["recipients", "commitment", "code", "body"] {
        let mut mixed = value(&one);
        mixed[member] = value(&two)[member].clone();
        assert!(open(mixed.to_string().as_bytes(), &ONE).is_err(), "{member}");
    }
}

#[test]
fn a_text_that_is_not_written_as_this_crate_would_is_refused() {
    let text = sealed().to_json();
    let (_, rest) = text.split_once("\"recipients\":[").unwrap();
    let (stanza, _) = rest.split_once(']').unwrap();
    for bad in [
        text.replacen("sealed/v1", "sealed/v2", 1),
        text.replacen("ML-KEM-1024+", "ML-KEM-768+", 1),
        text.replacen('{', "{\"more\":1,", 1),
        text.replacen("\"body\":", "\"body\":\"\",\"body\":", 1),
        text.replacen(
            "\"namespace\":\"team\"",
            "\"namespace\":\"team\",\"namespace\":\"team\"",
            1,
        ),
        text.replacen(stanza, "", 1),
        text.replacen(stanza, &format!("{stanza},{stanza}"), 1),
        text.replacen("\"code\":\"", "\"code\":\"AAAA", 1),
        format!("{text}{text}"),
        format!("{text}x"),
        String::new(),
        "null".to_owned(),
    ] {
        assert!(open(bad.as_bytes(), &ONE).is_err(), "{bad}");
    }
    // White space around it is no matter: YAML adds a newline.
    assert!(open(format!("{text}\n").as_bytes(), &ONE).is_ok());
}

#[test]
fn a_seal_for_nobody_or_for_one_twice_is_not_made() {
    for recipients in [vec![], to(&[&ONE, &ONE])] {
        assert!(matches!(
            Sealed::seal(SECRET, binding(), &recipients),
            Err(Error::Recipients)
        ));
    }
}

#[test]
fn new_recipients_leave_digest_and_blinding_as_they_were() {
    let old = sealed();
    let new = old.rewrap(&ONE, &to(&[&TWO])).unwrap();
    assert_eq!(new.digest(), old.digest());
    assert!(matches!(new.open(&ONE), Err(Error::NotForKey(_))));
    let (before, after) = (old.open(&ONE).unwrap(), new.open_for(&run(), &TWO).unwrap());
    assert_eq!(after.plaintext, before.plaintext);
    assert!(after.blinding == before.blinding);
    assert!(matches!(old.rewrap(&TWO, &to(&[&TWO])), Err(Error::NotForKey(_))));
    // A stanza that was bent is not passed on.
    let text = old
        .to_json()
        .replacen("\"workflow\":\"report\"", "\"workflow\":\"other\"", 1);
    let bent = Sealed::from_json(text.as_bytes()).unwrap();
    assert!(matches!(bent.rewrap(&ONE, &to(&[&TWO])), Err(Error::Damaged)));
}

#[test]
fn a_digest_tells_nothing_to_who_guesses_the_inputs() {
    let (one, two) = (sealed(), sealed());
    let digest = |sealed: &Sealed| sealed.open(&ONE).unwrap().blinding.digest(SECRET);
    assert_ne!(digest(&one), DigestSet::of(SECRET));
    assert_ne!(digest(&one), digest(&two));
    assert_eq!(
        digest(&one),
        digest(&one.rewrap(&ONE, &to(&[&ONE, &TWO])).unwrap())
    );
    assert_ne!(one.digest(), two.digest());
    let bytes = one.open(&ONE).unwrap().blinding;
    let back = Blinding::from_slice(bytes.as_bytes()).unwrap();
    assert_eq!(back.digest(SECRET), digest(&one));
    assert!(Blinding::from_slice(&bytes.as_bytes()[1..]).is_none());
}

#[test]
fn files_of_any_length_come_back_and_none_can_be_cut_or_grown() {
    let chunk = body::CHUNK;
    for length in [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk + 7] {
        let plaintext: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let file = seal_bytes(&plaintext, &[&ONE]);
        assert_eq!(open_bytes(&file, &ONE).unwrap(), plaintext, "{length}");
        let start = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let body = &file[start..];
        assert_eq!(body.len(), body::sealed_len(length));
        // At the border of every chunk, and one byte to each side of it.
        for border in (0..=body.len()).step_by(chunk + 16) {
            for cut in [border.saturating_sub(1), border, border + 1] {
                if cut < body.len() {
                    assert!(
                        open_bytes(&file[..start + cut], &ONE).is_err(),
                        "{length} cut to {cut}"
                    );
                }
            }
        }
        assert!(open_bytes(&[&file[..], b"x"].concat(), &ONE).is_err());
        assert!(open_bytes(&[&file[..], &body[..body.len().min(chunk + 16)]].concat(), &ONE).is_err());
        if body.len() > 2 * (chunk + 16) {
            let mut swapped = file.clone();
            let (one, two) = swapped[start..start + 2 * (chunk + 16)].split_at_mut(chunk + 16);
            one.swap_with_slice(two);
            assert!(open_bytes(&swapped, &ONE).is_err());
        }
    }
}

#[test]
fn a_file_changes_recipients_without_its_body() {
    let file = seal_bytes(SECRET, &[&ONE]);
    let mut new = Vec::new();
    rewrap_file(&mut &*file, &mut new, &ONE, &to(&[&TWO])).unwrap();
    assert_eq!(open_bytes(&new, &TWO).unwrap(), SECRET);
    assert!(matches!(open_bytes(&new, &ONE), Err(Error::NotForKey(_))));
    let body = |file: &[u8]| file[file.iter().position(|byte| *byte == b'\n').unwrap()..].to_vec();
    assert_eq!(body(&file), body(&new));
    assert_eq!(
        read_header(&mut &*new).unwrap().recipients().collect::<Vec<_>>(),
        [TWO.encapsulation_key().key_id()]
    );
}

#[test]
fn a_text_is_no_file_and_a_file_no_text() {
    let (text, file) = (sealed().to_json(), seal_bytes(SECRET, &[&ONE]));
    assert!(matches!(
        open_bytes(format!("{text}\n").as_bytes(), &ONE),
        Err(Error::Body)
    ));
    assert!(matches!(open_bytes(text.as_bytes(), &ONE), Err(Error::Body)));
    assert!(Sealed::from_json(&file).is_err());
    let line = file.split(|byte| *byte == b'\n').next().unwrap();
    assert!(matches!(Sealed::from_json(line), Err(Error::Body)));
}

proptest! {
    #[test]
    fn any_bytes_are_sealed_and_any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let sealed = Sealed::seal(&bytes, binding(), &to(&[&ONE])).unwrap();
        let opened = open(sealed.to_json().as_bytes(), &ONE).unwrap();
        prop_assert_eq!(opened.plaintext.as_slice(), &*bytes);
        prop_assert!(Sealed::from_json(&bytes).is_err());
        prop_assert!(open_bytes(&bytes, &ONE).is_err());
    }
}
