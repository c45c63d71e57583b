//! `chimera keys rotate`: asks for the next key now.

use api::names::ROTATE_ANNOTATION;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::policy::{self, PolicyName};
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output;
use crate::trust::OperatorArgs;
use crate::wait::WaitArgs;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The KeyRotationPolicy: NAME in the operator's namespace, or NAMESPACE/NAME
    #[arg(default_value = api::names::DEFAULT_SIGNING_POLICY)]
    policy: PolicyName,

    #[command(flatten)]
    wait: WaitArgs,

    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let name = &args.policy;
    let policies = name.api(args.cluster.connect().await?, &args.operator.operator_namespace);
    let found = name.find(&policies).await?;
    if found.spec.suspend {
        return Err(Error::failed(format!("{name} is suspended: it rotates nothing"))
            .hint("set spec.suspend to false, or revoke the key with `chimera keys revoke`"));
    }
    let old = policy::active(&found).unwrap_or("none").to_owned();
    let asked = Timestamp::now().to_string();
    let patch = json!({"metadata": {"annotations": {ROTATE_ANNOTATION: asked}}});
    // The annotation belongs to whoever asks, so it is a merge and not an apply that would have to own it.
    policies
        .patch(&name.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let what = format!("the rotation of {name}");
    let rotated = args.wait.until(&what, policies.clone(), &name.name, |policy| {
        let status = policy.status.as_ref();
        let obeyed = status.and_then(|status| status.observed_rotate.as_ref()) == Some(&asked);
        obeyed && policy::active(policy).is_some_and(|new| new != old)
    });
    match rotated.await {
        Ok(Some(policy)) => output::print(&format!("{old} → {}", policy::active(&policy).unwrap_or("none")))?,
        Ok(None) => output::note(format_args!(
            "{name} is asked to rotate; key {old} is in use until then"
        )),
        Err(error) => {
            return match name.find(&policies).await {
                Ok(policy) => Err(error.hint(policy::state(&policy))),
                Err(_) => Err(error),
            };
        }
    }
    Ok(ExitCode::Ok)
}
