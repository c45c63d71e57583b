//! Leader election through a `coordination.k8s.io/v1` Lease.
//!
//! A candidate writes only with the resourceVersion that it read, so exactly one of several wins. Another's Lease is
//! taken over when *this process* has watched it stay unchanged for its whole duration: clocks of other machines do
//! not matter, and a jump of the wall clock expires nothing. A leader that could not renew within two thirds of the
//! duration stops the process, before anybody else may take over.
//!
//! `leaseTransitions` grows with every acquisition, also by the same holder after a restart: it is the fencing token
//! that receipts carry.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};

use crate::{
    client::{CallError, call},
    clock,
};

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

    /// Renews until that fails for two thirds of the duration; then returns, and the process must end.
    pub async fn keep(&self, mut held: Held) -> CallError {
        let deadline = self.duration * 2 / 3;
        loop {
            tokio::time::sleep(self.retry_period()).await;
            let asked = Instant::now();
            let left = deadline.saturating_sub(held.renewed.elapsed());
            let renewal = tokio::time::timeout(left, self.renew(&held)).await;
            match renewal {
                Ok(Ok(lease)) => {
                    held = Held {
                        lease,
                        renewed: asked,
                    }
                }
                Ok(Err(error)) if error.is_conflict() => return error,
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the lease could not be renewed"
                    );
                    if held.renewed.elapsed() >= deadline {
                        return error;
                    }
                }
                Err(_) => {
                    return CallError::TimedOut {
                        action: "renew the lease",
                    };
                }
            }
        }
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

    async fn renew(&self, held: &Held) -> Result<Lease, CallError> {
        let mut lease = held.lease.clone();
        if let Some(spec) = lease.spec.as_mut() {
            spec.renew_time = Some(MicroTime(clock::now()));
        }
        self.write(&lease).await
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
    use super::*;

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
}
