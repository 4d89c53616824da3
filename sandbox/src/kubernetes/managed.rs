//! Who owns which field.

use serde_json::Value;

use super::options::Options;
use super::patch::Change;
use super::refusal::Refusal;
use super::server::Call;

pub(crate) fn created(_call: &Call<'_>, _options: &Options, object: Value) -> Result<Value, Refusal> {
    Ok(object)
}

pub(crate) fn changed(
    _call: &Call<'_>,
    _options: &Options,
    _change: &Change,
    new: Value,
    _unmanaged: &Value,
    _old: &Value,
) -> Result<Value, Refusal> {
    Ok(new)
}

pub(crate) fn applied(_call: &Call<'_>, _options: &Options, object: &Value, old: &Value) -> Result<Value, Refusal> {
    let mut new = old.clone();
    json_patch::merge(&mut new, object);
    Ok(new)
}
