//! What a step, or a person, makes of a record's data. Keys that are not known are left alone.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::rule::Step;
use crate::ca::bundle::ROOT_CERT;
use crate::ca::record::{CHAIN, ISSUER, ROTATION, Rotation, SEEN, Sighting, SigningRecord};
use crate::ca::{Sha256, file};

/// A record's data.
pub type Data = Map<String, Value>;

/// What a step is made of.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// The certificate of the goal, as the PKI engine has it.
    pub goal: &'a str,
    /// The same certified by the present issuer, for a switch that has it.
    pub cross: Option<&'a str>,
    /// What of the clusters is seen now.
    pub sightings: &'a BTreeMap<String, Sighting>,
}

/// Why there is nothing to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unchangeable {
    /// No root is being replaced.
    #[error("no root is being replaced")]
    NoRotation,
    /// What is going on cannot be read.
    #[error("`rotation` of the record cannot be read")]
    Unreadable,
    /// The certificate of the goal cannot be read.
    #[error("the certificate of the goal cannot be read")]
    Goal,
    /// The switch was decided with a cross.
    #[error("the cross is not at hand")]
    Cross,
    /// It began from no issuer, or from several.
    #[error("there is no single root to go back to")]
    NoWayBack,
    /// Nobody waits for this cluster.
    #[error("the rotation does not wait for this cluster")]
    NotAwaited,
}

/// The data after this step. `None`: the step is none of the record's.
///
/// # Errors
/// Why it cannot be taken.
pub fn after(
    data: &Data,
    record: &SigningRecord,
    step: &Step,
    material: &Material<'_>,
) -> Result<Option<Data>, Unchangeable> {
    let rotation = match &record.rotation {
        None => return Err(Unchangeable::NoRotation),
        Some(read) => read.as_ref().map_err(|_| Unchangeable::Unreadable)?,
    };
    let mut data = data.clone();
    match step {
        Step::GiveBack => return Ok(None),
        Step::Trust => {
            put(&mut data, ROOT_CERT, appended(&record.root_cert, material.goal));
            set(&mut data, SEEN, None)?;
        }
        Step::Switch { crossed } => {
            let cross = if *crossed { Some(material.cross.ok_or(Unchangeable::Cross)?) } else { None };
            switch(&mut data, rotation, cross)?;
        }
        Step::Return => {
            switch(&mut data, rotation, None)?;
        }
        Step::Note => set(&mut data, SEEN, Some(Sighting::data(material.sightings)))?,
        Step::Drop => {
            let goal = file::first(material.goal.as_bytes()).map_err(|_| Unchangeable::Goal)?.sha256;
            put(&mut data, ROOT_CERT, alone(&record.root_cert, goal).ok_or(Unchangeable::Goal)?);
            data.remove(CHAIN);
            set(&mut data, SEEN, None)?;
        }
        Step::Done => {
            data.remove(ROTATION);
        }
    }
    Ok(Some(data))
}

/// Signers are under the goal from now on, with this cross behind them.
fn switch(data: &mut Data, rotation: &Rotation, cross: Option<&str>) -> Result<(), Unchangeable> {
    put(data, ISSUER, rotation.goal.to_string());
    data.remove(CHAIN);
    if let Some(cross) = cross {
        put(data, CHAIN, block(cross));
    }
    set(data, SEEN, None)
}

/// The data with a rotation that begins.
pub fn started(data: &Data, rotation: &Rotation) -> Data {
    let mut data = data.clone();
    data.insert(ROTATION.to_owned(), rotation.data());
    data
}

/// The first data of all for clusters that have roots of their own: all of them are trusted, and the goal, and each cluster
/// keeps the signer that it has.
pub fn rescuing<'a>(own: impl IntoIterator<Item = &'a str>, rotation: &Rotation, goal: &'a str) -> Data {
    let roots: String = own.into_iter().chain([goal]).map(block).collect();
    let data = [(ROOT_CERT.to_owned(), Value::String(roots))];
    started(&data.into_iter().collect(), rotation)
}

/// The data with a rotation that rests, or goes on.
///
/// # Errors
/// If there is none.
pub fn paused(data: &Data, is_paused: bool) -> Result<Data, Unchangeable> {
    let mut data = data.clone();
    set(&mut data, "paused", Some(json!(is_paused)))?;
    Ok(data)
}

/// The data with a rotation that leads back to where it came from. Done twice, it leads on.
///
/// # Errors
/// If there is none, or no way back.
pub fn aborted(data: &Data) -> Result<Data, Unchangeable> {
    let rotation = data.get(ROTATION).ok_or(Unchangeable::NoRotation)?;
    let rotation = Rotation::parse(rotation).map_err(|_| Unchangeable::Unreadable)?;
    let [from] = &rotation.from[..] else { return Err(Unchangeable::NoWayBack) };
    let mut data = data.clone();
    set(&mut data, "goal", Some(json!(from.as_str())))?;
    set(&mut data, "from", Some(json!([rotation.goal.as_str()])))?;
    set(&mut data, "paused", Some(json!(false)))?;
    Ok(data)
}

/// The data with a rotation that does not wait for this cluster by name.
///
/// # Errors
/// If there is none, or it does not wait for it.
pub fn forgotten(data: &Data, cluster: &str) -> Result<Data, Unchangeable> {
    let rotation = data.get(ROTATION).ok_or(Unchangeable::NoRotation)?;
    let mut rotation = Rotation::parse(rotation).map_err(|_| Unchangeable::Unreadable)?;
    if !rotation.clusters.remove(cluster) {
        return Err(Unchangeable::NotAwaited);
    }
    let mut data = data.clone();
    set(&mut data, "clusters", Some(json!(rotation.clusters)))?;
    Ok(data)
}

fn put(data: &mut Data, key: &str, text: String) {
    data.insert(key.to_owned(), Value::String(text));
}

/// Changes one key of the rotation.
fn set(data: &mut Data, key: &str, value: Option<Value>) -> Result<(), Unchangeable> {
    let rotation = data.get_mut(ROTATION).and_then(Value::as_object_mut).ok_or(Unchangeable::NoRotation)?;
    match value {
        Some(value) => rotation.insert(key.to_owned(), value),
        None => rotation.remove(key),
    };
    Ok(())
}

/// A block that ends with one newline, whatever the PKI engine put behind it.
fn block(pem: &str) -> String {
    format!("{}\n", pem.trim())
}

/// The bundle with one more root. What was there keeps its bytes: istiod up to 1.29 wants them to be a part of the new.
fn appended(bundle: &[u8], root: &str) -> String {
    let bundle = String::from_utf8_lossy(bundle);
    let between = if bundle.ends_with('\n') { "" } else { "\n" };
    format!("{bundle}{between}{}", block(root))
}

/// The bundle with this root alone, in the bytes that it has there.
fn alone(bundle: &[u8], root: Sha256) -> Option<String> {
    file::block_of(bundle, root).map(block)
}

#[cfg(test)]
mod tests;
