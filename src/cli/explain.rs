//! `chimera explain CODE`: what a finding or a reason means.

use serde::Serialize;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};

/// Explains the code of a finding (MAML012) or the reason of a condition (NoHead)
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The code or reason; without one, all are listed
    code: Option<String>,

    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Explanation {
    code: &'static str,
    title: &'static str,
    #[serde(rename = "explanation")]
    text: String,
}

#[allow(clippy::unused_async, reason = "every verb has the same form")]
pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let Some(wanted) = &args.code else {
        let all: Vec<Explanation> = all().collect();
        args.output.print(&all, |all| {
            let rows: Vec<Vec<String>> = all
                .iter()
                .map(|one| vec![one.code.to_owned(), one.title.to_owned()])
                .collect();
            output::table(&["CODE", "MEANING"], &rows)
        })?;
        return Ok(ExitCode::Ok);
    };
    let found = all().find(|one| one.code.eq_ignore_ascii_case(wanted.trim()));
    let Some(found) = found else {
        return Err(Error::usage(format!("`{wanted}` is neither a code nor a reason"))
            .hint("`chimera explain` lists all of them"));
    };
    args.output.print(&found, |one| {
        format!("{}: {}\n\n{}\n", one.code, one.title, one.text)
    })?;
    Ok(ExitCode::Ok)
}

fn all() -> impl Iterator<Item = Explanation> {
    let codes = maml::Code::ALL.iter().map(|code| Explanation {
        code: code.as_str(),
        title: code.title(),
        text: code
            .explanation()
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join("\n"),
    });
    let reasons = api::reasons::ALL.iter().map(|reason| Explanation {
        code: reason.name,
        title: reason.given_by,
        text: reason.meaning.to_owned(),
    });
    codes.chain(reasons)
}
