//! What a gate tells, as places: the roots of its cluster, and Vault's where it saw others there.

use url::Url;

use super::compare::{GateSays, Kind, Place};
use crate::cli::source::Unread;
use crate::peers::served::{Client, Told};

/// Asks a gate.
pub(super) async fn ask(client: &Client, url: &Url) -> Vec<Place> {
    places(url.as_str(), client.ask(url).await)
}

fn places(url: &str, told: Result<Told, String>) -> Vec<Place> {
    let told = match told {
        Ok(told) => told,
        Err(why) => return vec![Place::new(Kind::Gate, url, Err(Unread::new(why)))],
    };
    let says = GateSays { mesh: told.mesh.clone(), rotation: told.rotation.clone() };
    let gate = |told| Place { says: says.clone(), ..Place::new(Kind::Gate, url, told) };
    match (told.cacerts.clone(), told.vault.clone()) {
        (Some(cluster), Some(vault)) if vault.roots != cluster.roots => {
            vec![gate(Ok(cluster)), Place::new(Kind::GateVault, format!("{url}, of Vault"), Ok(vault))]
        }
        (Some(cluster), _) => vec![gate(Ok(cluster))],
        (None, _) => vec![gate(Err(unread(told)))],
    }
}

fn unread(told: Told) -> Unread {
    let Told { reason, sentence, state, .. } = told;
    if sentence.is_empty() {
        return Unread { reason, sentence: format!("the gate knows of no root in cacerts (state {state})") };
    }
    Unread { reason, sentence }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::peers::samples::{root, sha256, told};
    use crate::reason::Reason;

    const URL: &str = "https://gate.example/fingerprint";

    fn of(change: impl FnOnce(&mut Told)) -> Vec<Place> {
        let mut told = told("nas", 1);
        change(&mut told);
        places(URL, Ok(told))
    }

    fn unread(places: &[Place]) -> String {
        let [Place { kind: Kind::Gate, told: Err(unread), .. }] = places else { panic!("{places:?}") };
        unread.to_string()
    }

    #[test]
    fn a_gate_tells_its_clusters_roots() {
        let [Place { kind: Kind::Gate, name, told: Ok(root), .. }] = &of(|_| ())[..] else { panic!() };
        assert_eq!((name.as_str(), root.sha256), (URL, sha256(1)));
    }

    #[test]
    fn a_gate_tells_what_its_mesh_works_with_and_what_is_under_way() {
        let rotation = crate::cli::verify::compare::tests::rotation();
        let [place] = &of(|told| told.rotation = Some(rotation.clone()))[..] else { panic!() };
        assert_eq!((&place.says.rotation, &place.says.mesh), (&Some(rotation), &None));
    }

    #[test]
    fn a_gate_that_sees_other_roots_in_vault_says_so() {
        let [_, Place { kind: Kind::GateVault, told: Ok(seen), .. }] = &of(|told| told.vault = Some(root(2)))[..]
        else {
            panic!()
        };
        assert_eq!(seen.sha256, sha256(2));
        assert_eq!(of(|told| told.vault = None).len(), 1);
    }

    #[test]
    fn a_gate_without_a_cacerts_gives_its_reason() {
        let held = |reason, sentence: &str| {
            unread(&of(|told| {
                "held".clone_into(&mut told.state);
                told.cacerts = None;
                told.reason = reason;
                sentence.clone_into(&mut told.sentence);
            }))
        };
        let sealed = Some(Reason::VaultSealed);
        assert_eq!(held(sealed, "cluster nas: unseal it"), "VaultSealed: cluster nas: unseal it");
        assert_eq!(held(None, ""), "the gate knows of no root in cacerts (state held)");
    }

    #[test]
    fn a_gate_that_does_not_answer_gives_why() {
        assert_eq!(
            unread(&places(URL, Err("status 404: check the address".to_owned()))),
            "status 404: check the address"
        );
    }
}
