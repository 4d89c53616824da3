//! What a user may write where a duration is asked for.

use std::time::Duration;

/// A duration of any length that makes sense.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write 3s, 1m or 24h"))?;
    if duration > Duration::from_secs(10 * 365 * 24 * 3600) {
        return Err("it is longer than ten years".to_owned());
    }
    Ok(duration)
}

/// A duration that something is repeated or given up after: none at all would spin, or never succeed.
///
/// # Errors
/// What is wrong with it.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) { Err("it is shorter than 100ms".to_owned()) } else { Ok(interval) }
}

/// A life of a certificate, whose dates are in whole seconds.
///
/// # Errors
/// What is wrong with it.
pub fn life(text: &str) -> Result<Duration, String> {
    let life = duration(text)?;
    if life < Duration::from_secs(3) { Err("it is shorter than 3s".to_owned()) } else { Ok(life) }
}
