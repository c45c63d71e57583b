//! Envelopes, bundles and sealed texts from the hands of an attacker: never accepted unless they mean what was signed, never a panic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "hostile/mutator.rs"]
mod mutator;
#[path = "sample/receipt.rs"]
#[allow(dead_code, reason = "each test uses a part of the sample")]
mod sample;

use crypto::kem::DecapsulationKey;
use crypto::revocation::{Revocation, RevocationReason};
use crypto::root_statement::RootStatement;
use crypto::seal::{Binding, Run, Sealed};
use crypto::trust::{Bundle, TrustedKeys};
use crypto::verify::{Verdict, verify_with};
use crypto::{Envelope, KeyId};
use mutator::Mutator;
use sample::{Sample, key};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// Makes the changes; `SEED` in the environment makes others.
const SEED: u64 = 20_260_301;
const MUTATIONS: u64 = 10_000;

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    seed.unwrap_or(SEED)
}

/// Runs `work` for the numbers below `end` on every core; the sum of what it gives.
fn on_every_core(end: u64, work: impl Fn(u64) -> u64 + Sync) -> u64 {
    let cores = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        let work = &work;
        let parts: Vec<_> = (0..cores as u64)
            .map(|core| scope.spawn(move || (core..end).step_by(cores).map(work).sum::<u64>()))
            .collect();
        parts.into_iter().map(|part| part.join().unwrap()).sum()
    })
}

fn without_panic<T>(what: &str, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| panic!("{what} made it panic"))
}

fn is_valid(file: &[u8], trusted: &TrustedKeys) -> bool {
    verify_with(file, Ok(trusted), None, None).verdict == Verdict::Valid
}

#[test]
fn no_receipt_with_one_byte_changed_is_accepted() {
    let sample = Sample::success();
    let file = sample.file();
    let trusted = sample.bundle.verify().unwrap();
    assert!(is_valid(&file, &trusted));
    let accepted = on_every_core(file.len() as u64, |index| {
        let place = usize::try_from(index).unwrap();
        let mut bent = file.clone();
        bent[place] ^= 1 << (place % 8);
        let accepted = without_panic(&format!("byte {place}"), || is_valid(&bent, &trusted));
        assert!(!accepted, "byte {place}");
        u64::from(accepted)
    });
    println!(
        "{} bytes of a receipt, one bit of each flipped: {accepted} accepted",
        file.len()
    );
}

#[test]
fn mutated_envelopes_are_accepted_only_when_they_are_one_that_was_signed() {
    let (sample, other) = (Sample::success(), Sample::refused());
    let trusted = sample.bundle.verify().unwrap();
    let signed = [sample.envelope(), other.envelope()];
    let files = signed.each_ref().map(Envelope::to_json);
    let bundle = sample.bundle.to_json();
    println!("seed {}", seed());
    let accepted = on_every_core(MUTATIONS / 2, |number| {
        let mut mutator = Mutator::new(seed().wrapping_add(number));
        let original = files[usize::from(number % 8 == 0)].as_bytes();
        let donors = [files[0].as_bytes(), files[1].as_bytes(), bundle.as_bytes()];
        let mutated = mutator.mutate(original, &donors);
        let what = format!("mutation {number} of seed {}", seed());
        let accepted = without_panic(&what, || is_valid(&mutated, &trusted));
        if accepted {
            let read = Envelope::from_json(&mutated).unwrap();
            assert!(signed.contains(&read), "{what} is accepted");
        }
        u64::from(accepted)
    });
    println!(
        "{} mutated envelopes: {accepted} accepted, each equal to a signed one",
        MUTATIONS / 2
    );
}

/// A bundle with everything that a bundle can hold: two roots, revoked keys, keys of every purpose.
fn rich_bundle() -> Bundle {
    let time = "2026-06-01T00:00:00Z".parse().unwrap();
    let mut bundle = sample::bundle(&key(1));
    bundle.roots = RootStatement::roll_over(&key(1), &key(6), time).unwrap().into();
    let revoked = key(3).verifying_key().key_id().clone();
    let revocation = Revocation::of(revoked, RevocationReason::KeyCompromise, Some(time), time);
    bundle.revocations = vec![revocation.sign(&key(1)).unwrap()];
    bundle
}

#[test]
fn mutated_bundles_never_give_a_key_that_the_pinned_root_did_not_vouch_for() {
    let bundle = rich_bundle();
    let original = bundle.to_json();
    let foreign = sample::bundle(&key(9)).to_json();
    let receipt = Sample::success().file();
    let pinned: KeyId = key(1).verifying_key().key_id().clone();
    let vouched = bundle.verify_pinned(Some(&pinned)).unwrap();
    println!("seed {}", seed());
    let believed = on_every_core(MUTATIONS / 2, |number| {
        let mut mutator = Mutator::new(seed().wrapping_add(number));
        let donors = [original.as_bytes(), foreign.as_bytes(), &receipt];
        let mutated = mutator.mutate(original.as_bytes(), &donors);
        let what = format!("mutation {number} of seed {}", seed());
        let keys = without_panic(&what, || {
            let bundle = Bundle::from_json(&mutated).ok()?;
            bundle.verify_pinned(Some(&pinned)).ok()
        });
        let Some(keys) = keys else { return 0 };
        assert_eq!(keys.anchor().key_id(), &pinned, "{what}");
        for found in keys.iter() {
            let known = vouched.find(found.statement.key_id.as_str()).expect(&what);
            assert_eq!(
                (&found.statement, &found.key),
                (&known.statement, &known.key),
                "{what}"
            );
            // A bundle that was cut short may lack a revocation: freshness is its source's to give.
            assert!(
                found.revocation.is_none() || found.revocation == known.revocation,
                "{what}"
            );
        }
        1
    });
    println!(
        "{} mutated bundles: {believed} believed, each with keys of the pinned root alone",
        MUTATIONS / 2
    );
}

#[test]
fn mutated_sealed_texts_open_only_as_what_was_sealed() {
    let document = b"a document";
    let key = |seed| DecapsulationKey::from_seed(&[seed; 64]).unwrap();
    let (one, two) = (key(1), key(2));
    let both = [one.encapsulation_key(), two.encapsulation_key()];
    let seal = |plaintext: &[u8], workflow| {
        let binding = Binding::new("team", workflow, Some(document));
        Sealed::seal(plaintext, binding, &both).unwrap()
    };
    let sealed = [
        seal(b"one", "report"),
        seal(b"two", "report"),
        seal(b"three", "other"),
    ];
    let texts = sealed.each_ref().map(Sealed::to_json);
    let run = Run {
        namespace: "team",
        workflow: "report",
        document,
    };
    println!("seed {}", seed());
    let opened = on_every_core(MUTATIONS, |number| {
        let mut mutator = Mutator::new(seed().wrapping_add(number));
        let donors = texts.each_ref().map(String::as_bytes);
        let mutated = mutator.mutate(texts[usize::from(number % 8 == 0) * 2].as_bytes(), &donors);
        let what = format!("mutation {number} of seed {}", seed());
        let opened = without_panic(&what, || {
            let sealed = Sealed::from_json(&mutated).ok()?;
            let opened = sealed.open_for(&run, &one).ok()?;
            Some((sealed, opened.plaintext.to_vec()))
        });
        let Some((read, plaintext)) = opened else { return 0 };
        // Written in another way, perhaps, but with the same content and the same recipients.
        let meant = sealed[..2].iter().position(|sealed| *sealed == read);
        assert_eq!(
            meant.map(|index| [&b"one"[..], b"two"][index]),
            Some(&*plaintext),
            "{what}"
        );
        1
    });
    println!("{MUTATIONS} mutated sealed texts: {opened} opened, each equal to one that was sealed");
}
