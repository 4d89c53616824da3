//! This service's own certificate, where nobody else makes it: the Secret that it and its CA are kept in, and the `caBundle`
//! of both webhook configurations.

pub mod ca_bundle;
pub mod secret;
