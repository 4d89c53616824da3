//! The volumes of a pod, as far as a patch depends on them.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::skim;
use crate::patch::SecretSource;

/// Most volumes, or sources of one, that are read: ten times what any pod has.
const LIST_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Spec<'a> {
    #[serde(borrow)]
    volumes: Option<Bounded<Volume<'a>>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Volume<'a> {
    #[serde(borrow)]
    secret: Option<SecretVolume<'a>>,
    #[serde(borrow)]
    projected: Option<Projected<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct SecretVolume<'a> {
    #[serde(borrow, default)]
    secret_name: Cow<'a, str>,
    optional: Option<bool>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Projected<'a> {
    #[serde(borrow)]
    sources: Option<Bounded<Source<'a>>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Source<'a> {
    #[serde(borrow)]
    secret: Option<ProjectedSecret<'a>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct ProjectedSecret<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    optional: Option<bool>,
}

/// What of a pod's `spec` is filled from Secrets.
pub(super) fn secrets(spec: &[u8]) -> serde_json::Result<Vec<SecretSource>> {
    let spec: Spec<'_> = skim::from_slice(spec)?;
    let mut found = Vec::new();
    for (volume, Volume { secret, projected }) in spec.volumes.into_iter().flat_map(|list| list.0).enumerate() {
        if let Some(SecretVolume { secret_name, optional }) = secret {
            found.push(source(volume, None, &secret_name, optional));
        }
        let sources = projected.and_then(|projected| projected.sources);
        for (index, Source { secret }) in sources.into_iter().flat_map(|list| list.0).enumerate() {
            if let Some(ProjectedSecret { name, optional }) = secret {
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
