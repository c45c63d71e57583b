//! Leader election through a `coordination.k8s.io/v1` Lease.
//!
//! A candidate writes only with the resourceVersion that it read, so exactly one of several wins. Another's Lease is
//! taken over when *this process* has watched it stay unchanged for its whole duration: clocks of other machines do
//! not matter, and a jump of the wall clock expires nothing. A leader that could not renew within two thirds of the
//! duration stops the process, before anybody else may take over.
//!
//! The holder keeps its [claims](crate::claims) in the Lease: a claim is written at once, and renews the Lease as well.
//!
//! `leaseTransitions` grows with every acquisition, also by the same holder after a restart: it is the fencing token
//! that receipts carry.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use api::names::CLAIMS_ANNOTATION;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};

use crate::{
    claims::{Claims, Unreadable},
    client::{CallError, call},
    clock,
};

/// After a write of the Lease that failed.
const WRITE_AGAIN: Duration = Duration::from_millis(250);

/// What a candidate does after it has read the Lease.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Nobody has made the Lease yet.
    Create(LeaseSpec),
    /// It is free, expired or this candidate's own: write this.
    Take(LeaseSpec),
    /// Another holds it: look again after this time.
    Wait(Duration),
}

/// What was seen of another's Lease, and when it was first seen like that.
#[derive(Debug, Clone)]
struct Sighting {
    resource_version: Option<String>,
    since: Instant,
}

/// The Lease of this operator.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
}

/// What an acquisition of the Lease gives to the process that leads from then on.
pub struct Term {
    /// Grows with every acquisition.
    pub fencing_token: u64,
    /// Those of the predecessor, and from now on its own.
    pub claims: Arc<Claims>,
}

/// A Lease that this process holds.
#[derive(Debug, Clone)]
pub struct Held {
    lease: Lease,
    renewed: Instant,
}

impl Held {
    /// Grows with every acquisition.
    pub fn fencing_token(&self) -> u64 {
        let transitions = self
            .lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or(0);
        u64::try_from(transitions).unwrap_or(0)
    }

    /// The claims that were left in the Lease.
    pub fn claims(&self) -> Result<Claims, Unreadable> {
        let annotations = self.lease.metadata.annotations.as_ref();
        let text = annotations.and_then(|all| all.get(CLAIMS_ANNOTATION));
        Claims::inherited(text.map(String::as_str))
    }

    /// Whether `lease` is this one, of the same acquisition, whatever else was written to it.
    fn is(&self, lease: &Lease) -> bool {
        let acquisition = |lease: &Lease| {
            let spec = lease.spec.as_ref()?;
            Some((spec.holder_identity.clone()?, spec.lease_transitions?))
        };
        self.lease.metadata.uid == lease.metadata.uid
            && acquisition(lease).is_some()
            && acquisition(&self.lease) == acquisition(lease)
    }
}

impl Election {
    /// A candidate for the Lease `name`; it may be taken over after `duration` without renewal.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String, duration: Duration) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            duration,
        }
    }

    /// Waits until this process holds the Lease.
    pub async fn acquire(&self) -> Held {
        let mut sighting: Option<Sighting> = None;
        loop {
            let pause = match self.try_acquire(&mut sighting).await {
                Ok(Ok(held)) => return held,
                Ok(Err(wait)) => wait,
                Err(error) if error.is_conflict() => self.retry_period(),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the lease could not be acquired"
                    );
                    self.retry_period()
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Renews, and writes claims, until that fails for two thirds of the duration; then returns, and the process must end.
    pub async fn keep(&self, mut held: Held, claims: &Claims) -> CallError {
        let deadline = self.duration * 2 / 3;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.retry_period()) => {}
                () = claims.added() => {}
            }
            while let Err(error) = self.renew(&mut held, claims, deadline).await {
                if error.is_conflict() || held.renewed.elapsed() >= deadline {
                    return error;
                }
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the lease could not be renewed"
                );
                tokio::time::sleep(WRITE_AGAIN).await;
            }
        }
    }

    /// One write of the Lease with all claims, within what is left of the deadline. A conflict means that it is another's.
    async fn renew(&self, held: &mut Held, claims: &Claims, deadline: Duration) -> Result<(), CallError> {
        let asked = Instant::now();
        let left = deadline.saturating_sub(held.renewed.elapsed());
        let (revision, text) = claims.text();
        let write = async {
            match self.write(&renewed(&held.lease, &text)).await {
                Err(error) if error.is_conflict() => {
                    // Perhaps an earlier write of this process was stored although its answer was lost.
                    let lease = call("read the lease", self.api.get(&self.name)).await?;
                    if !held.is(&lease) {
                        return Err(error);
                    }
                    self.write(&renewed(&lease, &text)).await
                }
                written => written,
            }
        };
        let timed_out = |_| CallError::TimedOut {
            action: "renew the lease",
        };
        let lease = tokio::time::timeout(left, write).await.map_err(timed_out)??;
        *held = Held {
            lease,
            renewed: asked,
        };
        claims.written(revision);
        Ok(())
    }

    /// Gives the Lease back so that a successor need not wait. Best effort: an unreleased Lease expires.
    pub async fn release(&self) {
        let Ok(mut lease) = call("read the lease", self.api.get(&self.name)).await else {
            return;
        };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return;
        }
        spec.holder_identity = None;
        if let Err(error) = self.write(&lease).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lease could not be released"
            );
        }
    }

    async fn try_acquire(
        &self,
        sighting: &mut Option<Sighting>,
    ) -> Result<Result<Held, Duration>, CallError> {
        let observed = call("read the lease", self.api.get_opt(&self.name)).await?;
        let unchanged_for = observe(sighting, observed.as_ref());
        let asked = Instant::now();
        match plan(
            observed.as_ref(),
            &self.identity,
            self.duration,
            unchanged_for,
            clock::now(),
        ) {
            Decision::Wait(time) => Ok(Err(time.min(self.retry_period()))),
            Decision::Create(spec) => {
                let lease = self.create(spec).await?;
                Ok(Ok(Held {
                    lease,
                    renewed: asked,
                }))
            }
            Decision::Take(spec) => {
                let mut lease = observed.expect("a lease is taken only when one was read");
                lease.spec = Some(spec);
                let lease = self.write(&lease).await?;
                Ok(Ok(Held {
                    lease,
                    renewed: asked,
                }))
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a POST that fails when the object exists is the point"
    )]
    async fn create(&self, spec: LeaseSpec) -> Result<Lease, CallError> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        };
        call(
            "create the lease",
            self.api.create(&PostParams::default(), &lease),
        )
        .await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a PUT with the resourceVersion that was read, so that one wins"
    )]
    async fn write(&self, lease: &Lease) -> Result<Lease, CallError> {
        call(
            "write the lease",
            self.api.replace(&self.name, &PostParams::default(), lease),
        )
        .await
    }

    fn retry_period(&self) -> Duration {
        self.duration / 6
    }
}

/// The Lease as it is renewed now, with these claims. Who managed which of its fields need not be sent along.
fn renewed(lease: &Lease, claims: &str) -> Lease {
    let mut lease = lease.clone();
    if let Some(spec) = lease.spec.as_mut() {
        spec.renew_time = Some(MicroTime(clock::now()));
    }
    lease.metadata.managed_fields = None;
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.insert(CLAIMS_ANNOTATION.to_owned(), claims.to_owned());
    lease
}

/// Notes what was read; for how long this process has seen the Lease unchanged.
fn observe(sighting: &mut Option<Sighting>, lease: Option<&Lease>) -> Duration {
    let resource_version = lease.and_then(|lease| lease.metadata.resource_version.clone());
    match sighting {
        Some(seen) if seen.resource_version == resource_version => seen.since.elapsed(),
        _ => {
            *sighting = Some(Sighting {
                resource_version,
                since: Instant::now(),
            });
            Duration::ZERO
        }
    }
}

/// Decides, without IO: who may take the Lease now.
fn plan(
    observed: Option<&Lease>,
    identity: &str,
    duration: Duration,
    unchanged_for: Duration,
    now: Timestamp,
) -> Decision {
    let spec = |transitions: i32| LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    let Some(lease) = observed else {
        return Decision::Create(spec(1));
    };
    let current = lease.spec.clone().unwrap_or_default();
    let next = current.lease_transitions.unwrap_or(0).saturating_add(1);
    let holder = current.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() || holder == identity {
        return Decision::Take(spec(next));
    }
    let theirs = current
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let valid_for = theirs.map_or(duration, Duration::from_secs);
    match valid_for.checked_sub(unchanged_for) {
        Some(left) if !left.is_zero() => Decision::Wait(left),
        _ => Decision::Take(spec(next)),
    }
}

#[cfg(test)]
mod tests {
    use api::{DigestSet, maml_workflow::AssignedHead};
    use controller_core::claim::Claim;

    use super::*;
    use crate::recorded_server::{Fault, Server};

    const DURATION: Duration = Duration::from_secs(15);

    fn lease(holder: Option<&str>) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some("7".into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(Into::into),
                lease_duration_seconds: Some(15),
                lease_transitions: Some(4),
                ..LeaseSpec::default()
            }),
        }
    }

    fn transitions(decision: &Decision) -> Option<i32> {
        match decision {
            Decision::Create(spec) | Decision::Take(spec) => spec.lease_transitions,
            Decision::Wait(_) => None,
        }
    }

    #[test]
    fn a_missing_lease_is_created_with_the_first_token() {
        let decision = plan(None, "me", DURATION, Duration::ZERO, Timestamp::UNIX_EPOCH);
        assert!(matches!(decision, Decision::Create(_)));
        assert_eq!(transitions(&decision), Some(1));
    }

    #[test]
    fn a_released_lease_and_ones_own_are_taken_at_once_with_a_larger_token() {
        for holder in [None, Some(""), Some("me")] {
            let decision = plan(
                Some(&lease(holder)),
                "me",
                DURATION,
                Duration::ZERO,
                Timestamp::UNIX_EPOCH,
            );
            assert!(matches!(decision, Decision::Take(_)), "{holder:?}");
            assert_eq!(transitions(&decision), Some(5));
        }
    }

    #[test]
    fn anothers_lease_is_taken_only_after_it_was_seen_unchanged_for_its_duration() {
        let other = lease(Some("other"));
        let late = Timestamp::from_second(4_000_000_000).expect("in range");
        let early = plan(Some(&other), "me", DURATION, Duration::from_secs(14), late);
        assert_eq!(
            early,
            Decision::Wait(Duration::from_secs(1)),
            "the wall clock does not matter"
        );
        let due = plan(Some(&other), "me", DURATION, DURATION, Timestamp::UNIX_EPOCH);
        assert!(matches!(due, Decision::Take(_)));
    }

    #[test]
    fn a_change_of_the_lease_starts_the_observation_again() {
        let mut sighting = None;
        let mut other = lease(Some("other"));
        assert_eq!(observe(&mut sighting, Some(&other)), Duration::ZERO);
        let since = sighting.as_ref().expect("noted").since;
        observe(&mut sighting, Some(&other));
        assert_eq!(sighting.as_ref().expect("kept").since, since);
        other.metadata.resource_version = Some("8".into());
        assert_eq!(observe(&mut sighting, Some(&other)), Duration::ZERO);
        assert_ne!(sighting.expect("new").resource_version.as_deref(), Some("7"));
    }
    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/ops/leases/l";

    fn candidate(server: &Arc<Server>, identity: &str) -> Election {
        Election::new(server.client(), "ops", "l", identity.to_owned(), DURATION)
    }

    fn claim() -> Claim {
        Claim {
            run_id: "run".to_owned(),
            attempt: 1,
            head: AssignedHead::default(),
            document: DigestSet::default(),
            inputs: DigestSet::default(),
            time: Timestamp::UNIX_EPOCH,
        }
    }

    /// Claims while the Lease is kept: whether the claim was made, unless the Lease was lost before that.
    async fn claim_in(election: &Election, held: Held, claims: &Claims) -> Result<bool, CallError> {
        tokio::select! {
            lost = election.keep(held, claims) => Err(lost),
            made = claims.claim("u", claim()) => Ok(made),
        }
    }

    #[tokio::test]
    async fn a_claim_is_one_write_and_the_next_holder_finds_it() {
        let server = Arc::new(Server::default());
        let election = candidate(&server, "me");
        let held = election.acquire().await;
        let claims = held.claims().expect("none");
        server.writes();
        assert!(claim_in(&election, held, &claims).await.expect("held"));
        assert_eq!(server.writes(), [format!("PUT {LEASE}")]);

        election.release().await;
        let successor = candidate(&server, "other").acquire().await;
        assert_eq!(successor.fencing_token(), 2);
        assert_eq!(successor.claims().expect("readable").of("u"), Some(claim()));
    }

    #[tokio::test]
    async fn a_claim_outlives_lost_answers_and_conflicts_with_ones_own_writes() {
        for fault in [Fault::LostBefore, Fault::LostAfter, Fault::Conflict] {
            let server = Arc::new(Server::default());
            let election = candidate(&server, "me");
            let held = election.acquire().await;
            let claims = held.claims().expect("none");
            server.fail(0, fault);
            assert!(
                claim_in(&election, held, &claims).await.expect("held"),
                "{fault:?}"
            );
            let kept =
                server.get(LEASE).expect("a lease")["metadata"]["annotations"][CLAIMS_ANNOTATION].clone();
            assert_eq!(kept.as_str(), Some(claims.text().1.as_str()), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn who_lost_the_lease_claims_nothing_even_if_it_was_its_own_successor() {
        for successor in ["other", "me"] {
            let server = Arc::new(Server::default());
            let election = candidate(&server, "me");
            let held = election.acquire().await;
            let claims = held.claims().expect("none");
            election.release().await;
            candidate(&server, successor).acquire().await;
            server.writes();
            let lost = claim_in(&election, held, &claims).await.expect_err("lost");
            assert!(lost.is_conflict(), "{lost}");
            assert_eq!(claims.of("u"), None);
            let annotations = &server.get(LEASE).expect("a lease")["metadata"]["annotations"];
            assert!(annotations.is_null(), "{annotations}");
        }
    }
}
