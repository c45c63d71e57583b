//! `chimera mu FILE`: the mirrored receipt of a text, back again, and whether the two belong together.

use std::path::PathBuf;

use maml::mirror::{self, Header};

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{output, source};

/// Mirrors a document (.mu), mirrors it back, or checks a mirror against its source
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The document, or with --reverse and --check the mirrored text; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Mirrors back: prints the source of a .mu
    #[arg(long, conflicts_with = "check")]
    reverse: bool,

    /// Checks length, digest and mirrored text
    #[arg(long, requires = "source")]
    check: bool,

    /// The text that the .mu should be of
    #[arg(long, value_name = "FILE", requires = "check")]
    source: Option<PathBuf>,
}

#[allow(clippy::unused_async, reason = "every verb has the same form")]
pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let text = source::read_text(&args.file)?;
    let shown = source::shown(&args.file);
    if args.reverse {
        let (_, body) = parse(&text, &shown)?;
        output::print_raw(mirror::reverse(body).as_bytes())?;
        return Ok(ExitCode::Ok);
    }
    if let Some(original) = &args.source {
        let original_text = source::read_text(original)?;
        return check(&text, &shown, &original_text);
    }
    let id = maml::read(&text)
        .document
        .map(|document| document.front_matter.id)
        .unwrap_or_default();
    let digest = blake3::hash(text.as_bytes()).to_hex().to_string();
    let header = Header::of(
        "receipt",
        &id,
        &text,
        &digest,
        &jiff::Timestamp::now().to_string(),
    );
    output::print_raw(mirror::write(&header, &text).as_bytes())?;
    Ok(ExitCode::Ok)
}

fn check(mirrored: &str, shown: &str, original: &str) -> Result<ExitCode, Error> {
    let (header, body) = match mirror::read(mirrored) {
        Err(cause @ mirror::Error::Length { .. }) => {
            output::print(&format!("length    failed: {cause}"))?;
            return Ok(ExitCode::DigestMismatch);
        }
        read => read.map_err(|cause| refused(shown, &cause))?,
    };
    let digest = blake3::hash(original.as_bytes()).to_hex().to_string();
    let checks = [
        ("length", header.source_bytes == original.len() as u64),
        ("digest", header.source_digest == digest),
        ("mirror", mirror::reverse(body) == original),
    ];
    let rows: Vec<String> = checks
        .iter()
        .map(|(name, passed)| format!("{name:<9} {}", if *passed { "ok" } else { "failed" }))
        .collect();
    output::print(&rows.join("\n"))?;
    if header.signature.is_some() {
        output::note(
            "the signature is not checked here; `chimera verify` checks the receipt that holds this text",
        );
    }
    Ok(if checks.iter().all(|(_, passed)| *passed) {
        ExitCode::Ok
    } else {
        ExitCode::DigestMismatch
    })
}

fn parse<'t>(text: &'t str, shown: &str) -> Result<(Header, &'t str), Error> {
    mirror::read(text).map_err(|cause| refused(shown, &cause))
}

fn refused(shown: &str, cause: &mirror::Error) -> Error {
    Error::usage(format!("{shown} is not a mirrored text"))
        .because(cause)
        .hint("make one with `chimera mu FILE`")
}
