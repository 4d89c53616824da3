//! The volumes of a pod, as far as a patch depends on them.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Map;
use crate::patch::SecretSource;

/// Most volumes, or sources of one, that are read: ten times what any pod has.
const LIST_MAX: usize = 1000;

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow)]
    volumes: Option<Bounded<Map<Volume<'a>>>>,
}

#[derive(Deserialize)]
struct Volume<'a> {
    #[serde(borrow)]
    secret: Option<Map<SecretVolume<'a>>>,
    #[serde(borrow)]
    projected: Option<Map<Projected<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretVolume<'a> {
    #[serde(borrow, default)]
    secret_name: Cow<'a, str>,
    optional: Option<bool>,
}

#[derive(Deserialize)]
struct Projected<'a> {
    #[serde(borrow)]
    sources: Option<Bounded<Map<Source<'a>>>>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    secret: Option<Map<ProjectedSecret<'a>>>,
}

#[derive(Deserialize)]
struct ProjectedSecret<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    optional: Option<bool>,
}

/// What of a pod's `spec` is filled from Secrets.
pub(super) fn secrets(spec: &str) -> serde_json::Result<Vec<SecretSource>> {
    let Map(spec): Map<Spec<'_>> = serde_json::from_str(spec)?;
    let mut found = Vec::new();
    for (volume, Map(Volume { secret, projected })) in spec.volumes.into_iter().flat_map(|list| list.0).enumerate() {
        if let Some(Map(SecretVolume { secret_name, optional })) = secret {
            found.push(source(volume, None, &secret_name, optional));
        }
        let sources = projected.and_then(|Map(projected)| projected.sources);
        for (index, Map(Source { secret })) in sources.into_iter().flat_map(|list| list.0).enumerate() {
            if let Some(Map(ProjectedSecret { name, optional })) = secret {
                found.push(source(volume, Some(index), &name, optional));
            }
        }
    }
    Ok(found)
}

fn source(volume: usize, source: Option<usize>, name: &str, optional: Option<bool>) -> SecretSource {
    SecretSource { volume, source, name: super::short(name), optional: optional.unwrap_or(false) }
}

/// A list that ends early if it is too long.
struct Bounded<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {LIST_MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == LIST_MAX {
                        return Err(A::Error::invalid_length(LIST_MAX + 1, &self));
                    }
                    items.push(item);
                }
                Ok(items)
            }
        }

        deserializer.deserialize_seq(Items(PhantomData)).map(Self)
    }
}
