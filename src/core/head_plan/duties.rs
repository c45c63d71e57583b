//! Which pods serve and which wait as spares.

use super::{Duty, PodView};

/// The pods that serve: ready ones before others, and among equals those that serve already.
pub(super) fn choose_active<'a>(staying: &[&'a PodView], replicas: i32) -> Vec<&'a str> {
    let mut ranked: Vec<_> = staying.to_vec();
    ranked.sort_by_key(|pod| (!pod.ready && !pod.is_awaited(), pod.spare, pod.slot));
    let replicas = usize::try_from(replicas).unwrap_or(0);
    ranked
        .into_iter()
        .take(replicas)
        .map(|pod| pod.uid.as_str())
        .collect()
}

/// The labels to change, promotions first: a run that waits finds its head before another is taken out of service.
pub(super) fn changes(staying: &[&PodView], active: &[&str]) -> Vec<Duty> {
    let mut duties: Vec<_> = staying
        .iter()
        .filter(|pod| pod.spare == active.contains(&pod.uid.as_str()))
        .map(|pod| Duty {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            spare: !pod.spare,
        })
        .collect();
    duties.sort_by_key(|duty| duty.spare);
    duties
}
