//! `chimera mu FILE`: the mirrored receipt of a text, back again, and whether the two belong together.
//!
//! Texts of any size take little memory: a mirror is read from its end.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use crypto::KeyPurpose;
use jiff::Timestamp;
use maml::mirror::{self, Header, StreamError, forward_stream, reverse_stream};
use serde::Serialize;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{local_keys, output, source, trust};

/// Mirrors a document (.mu), mirrors it back, or checks a mirror against its source
///
/// The header is signed with the key of this machine, which is made on first use. --check ends with 10 when the signature does not
/// hold, 11 when its key is not trusted, 12 when the texts do not belong together.
#[derive(clap::Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// The document, or with --reverse and --check the mirrored text; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Mirrors back: prints the source of a .mu
    #[arg(long, conflicts_with = "check")]
    reverse: bool,

    /// Checks length, digest, mirrored text and signature
    #[arg(long, requires = "source")]
    check: bool,

    /// The text that the .mu should be of
    #[arg(long, value_name = "FILE", requires = "check")]
    source: Option<PathBuf>,

    /// The trust bundle that the signature is checked with; without it, that of this machine, or the pinned one
    #[arg(long, value_name = "FILE", requires = "check")]
    trust: Option<PathBuf>,

    /// Leaves the header unsigned
    #[arg(long, conflicts_with_all = ["reverse", "check"])]
    unsigned: bool,

    /// Takes out what looks like a secret first, as receipts do
    #[arg(long, conflicts_with_all = ["reverse", "check"])]
    redact: bool,

    /// How the result of --check is written
    #[arg(short, long, value_enum, default_value_t, requires = "check")]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each check
    #[default]
    Text,
    /// JSON, indented
    Json,
}

/// A header ends long before this.
const LONGEST_HEADER: u64 = 256 * 1024;
/// A document has an id only up to the size that is read as one.
const LARGEST_DOCUMENT: u64 = 1024 * 1024;

#[allow(clippy::unused_async, reason = "every verb has the same form")]
pub async fn run(args: Args) -> Result<ExitCode, Error> {
    if args.reverse {
        return reverse(&args.file);
    }
    if let Some(original) = &args.source {
        return check(&args, original);
    }
    let mut text = if args.redact {
        spooled(mirror::redact(&source::read_text(&args.file)?).as_bytes())?
    } else {
        open(&args.file)?
    };
    write_mirror(&args, &mut text)
}

/// The text with random access; stdin is copied to a file without a name first.
fn open(path: &Path) -> Result<File, Error> {
    if source::is_stdin(path) {
        return spooled(io::stdin().lock());
    }
    File::open(path)
        .map_err(|cause| Error::usage(format!("cannot read {}", source::shown(path))).because(&cause))
}

fn spooled(mut text: impl Read) -> Result<File, Error> {
    let copied = tempfile::tempfile().and_then(|mut file| {
        io::copy(&mut text, &mut file)?;
        file.rewind()?;
        Ok(file)
    });
    copied.map_err(|cause| Error::failed("cannot keep the text").because(&cause))
}

fn write_mirror(args: &Args, text: &mut File) -> Result<ExitCode, Error> {
    let shown = source::shown(&args.file);
    let unread = |cause: io::Error| Error::usage(format!("cannot read {shown}")).because(&cause);
    let (digest, bytes) = digest(text).map_err(unread)?;
    let id = document_id(text, bytes).map_err(unread)?;
    let mut header = Header::of("receipt", &id, "", &digest, &Timestamp::now().to_string());
    header.source_bytes = bytes;
    if !args.unsigned {
        let keys = local_keys::open()?;
        header.signer = Some(keys.signing.verifying_key().key_id().to_string());
        let signature = keys
            .signing
            .sign(&header.signed_bytes())
            .map_err(|cause| Error::failed("cannot sign the header").because(&cause))?;
        header.signature = Some(STANDARD.encode(signature));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    out.write_all(mirror::write_header(&header).as_bytes())
        .map_err(|cause| Error::of_stdout(&cause))?;
    forward_stream(text, &mut out).map_err(|cause| of_stream(&shown, cause))?;
    Ok(ExitCode::Ok)
}

/// BLAKE3 in hexadecimal, and the length.
fn digest(text: &mut File) -> io::Result<(String, u64)> {
    text.rewind()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut *text)?;
    Ok((hasher.finalize().to_hex().to_string(), hasher.count()))
}

/// The id that the front matter gives; empty where there is none.
fn document_id(text: &mut File, bytes: u64) -> io::Result<String> {
    if bytes > LARGEST_DOCUMENT {
        return Ok(String::new());
    }
    text.rewind()?;
    let mut document = Vec::new();
    text.take(LARGEST_DOCUMENT).read_to_end(&mut document)?;
    let reading = maml::read(&String::from_utf8_lossy(&document));
    Ok(reading
        .document
        .map(|document| document.front_matter.id)
        .unwrap_or_default())
}

/// A mirrored text: its header and where its body lies.
struct Mirrored {
    header: Header,
    file: File,
    body_offset: u64,
    body_bytes: u64,
}

fn read_mirrored(path: &Path) -> Result<Mirrored, Error> {
    let shown = source::shown(path);
    let unread = |cause: io::Error| Error::usage(format!("cannot read {shown}")).because(&cause);
    let mut file = open(path)?;
    let mut start = Vec::new();
    (&mut file)
        .take(LONGEST_HEADER)
        .read_to_end(&mut start)
        .map_err(unread)?;
    let (header, offset) = mirror::read_header(&start).map_err(|cause| refused(&shown, &cause))?;
    let length = file.seek(SeekFrom::End(0)).map_err(unread)?;
    let body_offset = offset as u64;
    Ok(Mirrored {
        header,
        file,
        body_offset,
        body_bytes: length - body_offset,
    })
}

fn reverse(path: &Path) -> Result<ExitCode, Error> {
    let mut mirrored = read_mirrored(path)?;
    let shown = source::shown(path);
    if mirrored.body_bytes != mirrored.header.source_bytes {
        let cause = mirror::Error::Length {
            expected: mirrored.header.source_bytes,
            found: mirrored.body_bytes,
        };
        return Err(refused(&shown, &cause));
    }
    let mut out = Hashing {
        inner: BufWriter::new(io::stdout().lock()),
        hasher: blake3::Hasher::new(),
    };
    reverse_stream(&mut mirrored.file, mirrored.body_offset, &mut out)
        .map_err(|cause| of_stream(&shown, cause))?;
    if out.hasher.finalize().to_hex().as_str() == mirrored.header.source_digest {
        return Ok(ExitCode::Ok);
    }
    Err(Error::new(
        ExitCode::DigestMismatch,
        format!("{shown} was changed: mirrored back, it is not the text that its header names"),
    ))
}

/// Passes on what is written, and takes its digest.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// One check of a mirrored text.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    passed: bool,
    detail: String,
    #[serde(skip)]
    failure: ExitCode,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    header: &'a Header,
    checks: &'a [Check],
    valid: bool,
}

fn check(args: &Args, original: &Path) -> Result<ExitCode, Error> {
    let mut mirrored = read_mirrored(&args.file)?;
    let shown = source::shown(original);
    let mut text = open(original)?;
    let (digest, bytes) =
        digest(&mut text).map_err(|cause| Error::usage(format!("cannot read {shown}")).because(&cause))?;
    let header = mirrored.header.clone();
    let compared = |name, passed, wrong: &str| Check {
        name,
        passed,
        detail: if passed { String::new() } else { wrong.to_owned() },
        failure: ExitCode::DigestMismatch,
    };
    let mut back = Hashing {
        inner: io::sink(),
        hasher: blake3::Hasher::new(),
    };
    let is_text = reverse_stream(&mut mirrored.file, mirrored.body_offset, &mut back).is_ok();
    let is_mirror = is_text && back.hasher.finalize().to_hex().as_str() == digest;
    let lengths = header.source_bytes == bytes && mirrored.body_bytes == bytes;
    let mut checks = vec![
        compared("length", lengths, "header, body and source differ in length"),
        compared(
            "digest",
            header.source_digest == digest,
            "the header names another text",
        ),
        compared("mirror", is_mirror, "the body is not the mirror of the source"),
    ];
    if header.signature.is_some() || header.signer.is_some() {
        checks.push(check_signature(args, &header)?);
    }
    report(args, &header, &checks)
}

fn check_signature(args: &Args, header: &Header) -> Result<Check, Error> {
    let failed = |detail: String, failure| Check {
        name: "signature",
        passed: false,
        detail,
        failure,
    };
    let signer = header.signer.as_deref().unwrap_or_default();
    let anchor = trust::of_signer(args.trust.as_deref(), signer)?;
    let trusted = trust::believe(&anchor.bundle)?;
    let key = signer
        .parse()
        .ok()
        .and_then(|id| trusted.key(&id, KeyPurpose::Signing));
    let Some(key) = key else {
        return Ok(failed(
            format!("the key {signer} is not one that the root vouches for"),
            ExitCode::UntrustedKey,
        ));
    };
    let signature = STANDARD.decode(header.signature.as_deref().unwrap_or_default());
    let holds = signature.is_ok_and(|signature| key.verify(&header.signed_bytes(), &signature).is_ok());
    if !holds {
        return Ok(failed("does not hold".to_owned(), ExitCode::BadSignature));
    }
    Ok(Check {
        name: "signature",
        passed: true,
        detail: format!("by {signer}"),
        failure: ExitCode::BadSignature,
    })
}

/// Prints the checks. A signature that fails outweighs texts that differ.
fn report(args: &Args, header: &Header, checks: &[Check]) -> Result<ExitCode, Error> {
    let failed = |code| checks.iter().any(|check| !check.passed && check.failure == code);
    let code = [
        ExitCode::BadSignature,
        ExitCode::UntrustedKey,
        ExitCode::DigestMismatch,
    ]
    .into_iter()
    .find(|code| failed(*code))
    .unwrap_or(ExitCode::Ok);
    match args.output {
        Format::Json => output::print_json(&Report {
            header,
            checks,
            valid: code == ExitCode::Ok,
        })?,
        Format::Text => {
            let rows = checks.iter().map(|check| {
                let mark = if check.passed { "ok  " } else { "FAIL" };
                let row = format!("{mark}  {:<9}  {}", check.name, output::harmless(&check.detail));
                row.trim_end().to_owned()
            });
            output::print(&rows.collect::<Vec<_>>().join("\n"))?;
        }
    }
    if header.signature.is_none() {
        output::note("the header is not signed: nothing proves who made it");
    }
    Ok(code)
}

fn of_stream(shown: &str, cause: StreamError) -> Error {
    match cause {
        StreamError::Write(cause) => Error::of_stdout(&cause),
        cause => Error::usage(format!("cannot mirror {shown}")).because(&cause),
    }
}

fn refused(shown: &str, cause: &mirror::Error) -> Error {
    Error::usage(format!("{shown} is not a mirrored text"))
        .because(cause)
        .hint("make one with `chimera mu FILE`")
}
