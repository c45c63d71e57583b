//! `chimera head status [NAME]`: who is busy, warm and spare, what was lost lately, and devices.

use std::io::IsTerminal as _;

use api::{ChimeraHead, MamlWorkflow};
use futures::{Stream, StreamExt as _, stream};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};

use super::mirror::Mirror;
use super::overview::{self, Overview};
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of the ChimeraHead, `head/NAME` too; all of the namespace when not given
    #[arg(value_name = "NAME", value_parser = parse_name, add = crate::completion::heads())]
    name: Option<String>,

    /// Prints everything again on every change, until it is interrupted
    #[arg(short, long)]
    watch: bool,

    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    cluster: ClusterArgs,
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = match text.split_once('/') {
        None => text,
        Some((kind, name)) => {
            let kind = kind.split('.').next().unwrap_or_default().to_ascii_lowercase();
            if !matches!(kind.as_str(), "head" | "chimerahead" | "chimeraheads") {
                return Err(format!("{kind} is not a ChimeraHead"));
            }
            name
        }
    };
    if name.is_empty() {
        return Err("the name is missing".to_owned());
    }
    Ok(name.to_owned())
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let client = args.cluster.connect().await?;
    if args.watch {
        return follow(&args, client).await;
    }
    let heads: Api<ChimeraHead> = Api::default_namespaced(client.clone());
    let workflows: Api<MamlWorkflow> = Api::default_namespaced(client.clone());
    let all = ListParams::default();
    let (heads, workflows) = tokio::try_join!(heads.list(&all), workflows.list(&all))?;
    let shown = select(
        &args,
        client.default_namespace(),
        &heads.items.iter().collect::<Vec<_>>(),
        &workflows.items.iter().collect::<Vec<_>>(),
    )?;
    print(&args, &shown)?;
    Ok(ExitCode::Ok)
}

/// The heads that were asked for.
fn select(
    args: &Args,
    namespace: &str,
    heads: &[&ChimeraHead],
    workflows: &[&MamlWorkflow],
) -> Result<Vec<Overview>, Error> {
    let wanted = |head: &Overview| args.name.as_ref().is_none_or(|name| head.name == *name);
    let shown: Vec<_> = heads
        .iter()
        .map(|head| Overview::of(head, workflows))
        .filter(wanted)
        .collect();
    match &args.name {
        Some(name) if shown.is_empty() => Err(Error::failed(format!(
            "there is no ChimeraHead {name} in namespace {namespace}"
        ))
        .hint("kubectl get head -A")),
        _ => Ok(shown),
    }
}

/// One object for a head that was named, else a list.
fn print(args: &Args, shown: &[Overview]) -> Result<(), Error> {
    match (&args.name, shown) {
        (Some(_), [head]) => args
            .output
            .print(head, |head| overview::text(std::slice::from_ref(head))),
        _ => args.output.print(&shown, |shown| overview::text(shown)),
    }
}

/// What either watch tells.
enum Told {
    Head(Box<watcher::Event<ChimeraHead>>),
    Workflow(Box<watcher::Event<MamlWorkflow>>),
}

async fn follow(args: &Args, client: Client) -> Result<ExitCode, Error> {
    let (mut heads, mut workflows) = (Mirror::default(), Mirror::default());
    let mut told = std::pin::pin!(watch(&client));
    let mut last = None;
    while let Some(event) = told.next().await {
        match event? {
            Some(Told::Head(event)) => heads.take(*event),
            Some(Told::Workflow(event)) => workflows.take(*event),
            None => continue,
        }
        let (Some(heads), Some(workflows)) = (heads.objects(), workflows.objects()) else {
            continue;
        };
        let shown = select(args, client.default_namespace(), &heads, &workflows)?;
        if last.as_ref() == Some(&shown) {
            continue;
        }
        begin_again(args, last.is_none())?;
        print(args, &shown)?;
        last = Some(shown);
    }
    Err(Error::failed("the watch of the heads ended"))
}

/// Both watches. They start again by themselves unless they are refused.
fn watch(client: &Client) -> impl Stream<Item = Result<Option<Told>, Error>> {
    let heads: Api<ChimeraHead> = Api::default_namespaced(client.clone());
    let workflows: Api<MamlWorkflow> = Api::default_namespaced(client.clone());
    let heads = watcher(heads, watcher::Config::default())
        .default_backoff()
        .map(|event| tell(event, Told::Head));
    let workflows = watcher(workflows, watcher::Config::default())
        .default_backoff()
        .map(|event| tell(event, Told::Workflow));
    stream::select(heads, workflows)
}

fn tell<K>(
    event: watcher::Result<watcher::Event<K>>,
    told: impl FnOnce(Box<watcher::Event<K>>) -> Told,
) -> Result<Option<Told>, Error> {
    match event {
        Ok(event) => Ok(Some(told(Box::new(event)))),
        Err(watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause)) => {
            match &cause {
                kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404) => Err(cause.into()),
                _ => Ok(None),
            }
        }
        Err(_) => Ok(None),
    }
}

/// Parts what is printed from what was: by an empty screen on a terminal, else as its format wants it.
fn begin_again(args: &Args, first: bool) -> Result<(), Error> {
    match args.output {
        Format::Table if std::io::stdout().is_terminal() => output::print_raw(b"\x1b[H\x1b[2J"),
        Format::Table if !first => output::print_raw(b"\n"),
        Format::Yaml if !first => output::print_raw(b"---\n"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_named_with_or_without_its_kind() {
        assert_eq!(parse_name("q"), Ok("q".to_owned()));
        assert_eq!(parse_name("head/q"), Ok("q".to_owned()));
        assert_eq!(parse_name("chimeraheads.chimera.dunes.io/q"), Ok("q".to_owned()));
        assert!(parse_name("pod/q").is_err() && parse_name("head/").is_err());
    }
}
